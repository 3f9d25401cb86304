//! One call: values in, the crossing, values out.

use heck::ToUpperCamelCase as _;
use uniffi_bindgen::pipeline::general::{Argument, Callable, CallableKind, FfiType, Type};

use crate::config::Config;
use crate::{names, types};

/// The variable that holds how futures of a kind are driven.
pub fn future_kind(kind: &str) -> String {
    format!("future{}", kind.to_upper_camel_case())
}

pub fn render(callable: &Callable, docs: Option<&str>, config: &Config) -> String {
    let call = Call { callable, config };
    format!(
        "{}{} {{\n{}{}{}{}}}\n\n",
        names::docs(docs, ""),
        call.signature(),
        call.encode(),
        call.handles(),
        call.cross(),
        call.answer()
    )
}

struct Call<'a> {
    callable: &'a Callable,
    config: &'a Config,
}

impl Call<'_> {
    fn throws(&self) -> bool {
        self.callable.throws_type.ty.is_some() || self.callable.is_async()
    }

    fn answer_type(&self) -> Option<&Type> {
        self.callable.return_type.ty.as_ref().map(|ty| &ty.ty)
    }

    /// The object that is called, or made.
    fn owner(&self) -> Option<&str> {
        match &self.callable.kind {
            CallableKind::Method { self_type } | CallableKind::Constructor { self_type, .. } => {
                match &self_type.ty {
                    Type::Interface { name, .. } => Some(name),
                    _ => None,
                }
            }
            CallableKind::Function | CallableKind::VTableMethod { .. } => None,
        }
    }

    fn is_method(&self) -> bool {
        matches!(self.callable.kind, CallableKind::Method { .. })
    }

    fn signature(&self) -> String {
        let (name, owner) = (&self.callable.name, self.owner().unwrap_or_default());
        let go_owner = names::type_name(owner, self.config);
        let head = match &self.callable.kind {
            CallableKind::Method { .. } => {
                format!("func (o *{go_owner}) {}", names::method(owner, name, self.config))
            }
            CallableKind::Constructor { .. } => {
                let new = if self.config.is_exported(owner) { "New" } else { "new" };
                format!("func {new}{owner}")
            }
            _ => format!("func {}", names::function(name, self.config)),
        };
        let context = self.callable.is_async().then(|| "ctx context.Context".to_owned());
        let arguments = self.callable.arguments.iter().map(|argument| {
            format!("{} {}", names::local(&argument.name), types::go(&argument.ty.ty, self.config))
        });
        let arguments = context.into_iter().chain(arguments).collect::<Vec<_>>().join(", ");
        let answer = self.answer_type().map(|ty| types::go(ty, self.config));
        let answer = match (answer, self.throws()) {
            (Some(ty), true) => format!("(answer {ty}, err error)"),
            (None, true) => "(err error)".to_owned(),
            (Some(ty), false) => format!("(answer {ty})"),
            (None, false) => String::new(),
        };
        format!("{head}({arguments}) {answer}").trim_end().to_owned()
    }

    /// How to leave with the error at hand.
    fn leave(&self) -> &'static str {
        if self.answer_type().is_some() { "return answer, err" } else { "return err" }
    }

    /// Everything that can fail in Go is done before anything crosses: nothing has to be taken back then.
    fn encode(&self) -> String {
        let mut text = String::new();
        for (index, argument) in self.callable.arguments.iter().enumerate() {
            let (name, ty) = (names::local(&argument.name), &argument.ty.ty);
            text += &match ty {
                Type::String => format!("\tvar w{index} writer\n\tw{index}.text({name})\n"),
                Type::Int32 => format!("\tvar w{index} writer\n\tw{index}.int32({name})\n"),
                _ if is_buffer(argument) => {
                    let write = types::write(ty, &name, self.config);
                    format!("\tvar w{index} writer\n\t{{\n\t\tw := &w{index}\n\t\t{write}\n\t}}\n")
                }
                _ => continue,
            };
        }
        let writers: Vec<_> = (self.callable.arguments.iter().enumerate())
            .filter(|(_, it)| is_buffer(it) || matches!(it.ty.ty, Type::Int32))
            .map(|(index, _)| format!("w{index}.err"))
            .collect();
        if !writers.is_empty() {
            let leave = self.leave();
            text +=
                &format!("\tif err = firstError({}); err != nil {{\n\t\t{leave}\n\t}}\n", writers.join(", "));
        }
        if self.callable.is_async() {
            // A context that has ended makes no call at all.
            let leave = self.leave();
            text += &format!("\tif ctx.Err() != nil {{\n\t\terr = contextError(ctx)\n\t\t{leave}\n\t}}\n");
        }
        text
    }

    /// The library takes handles of its own, so that closing an object harms no call that is under way.
    fn handles(&self) -> String {
        let mut objects: Vec<String> = self.is_method().then(|| "o".to_owned()).into_iter().collect();
        let given = self.callable.arguments.iter().filter(|it| matches!(it.ty.ty, Type::Interface { .. }));
        objects.extend(given.map(|it| names::local(&it.name)));
        if objects.is_empty() {
            return String::new();
        }
        let list = objects.iter().map(|it| format!("&{it}.object")).collect::<Vec<_>>().join(", ");
        let keep: String = objects.iter().map(|it| format!("\truntime.KeepAlive({it})\n")).collect();
        if self.throws() {
            let leave = self.leave();
            format!("\thandles, err := cloneAll({list})\n\tif err != nil {{\n\t\t{leave}\n\t}}\n{keep}")
        } else {
            format!("\thandles := mustCloneAll({list})\n{keep}")
        }
    }

    fn arguments(&self) -> String {
        let mut next = 0;
        let mut handle = || {
            next += 1;
            format!("handles[{}]", next - 1)
        };
        let mut list: Vec<String> = self.is_method().then(&mut handle).into_iter().collect();
        for (index, argument) in self.callable.arguments.iter().enumerate() {
            let name = names::local(&argument.name);
            list.push(match &argument.ty.ty {
                Type::Interface { .. } => handle(),
                Type::Boolean => format!("boolean({name})"),
                _ if is_buffer(argument) => format!("w{index}.toRust()"),
                _ => format!("C.{}({name})", types::c(&argument.ty.ffi_type).unwrap_or_default()),
            });
        }
        if !self.callable.is_async() {
            list.push("status".to_owned());
        }
        list.join(", ")
    }

    fn cross(&self) -> String {
        let (function, arguments) = (&self.callable.ffi_func.0, self.arguments());
        let read = self.callable.throws_type.ty.as_ref().map_or("nil".to_owned(), |ty| match &ty.ty {
            Type::Enum { name, .. } => format!("read{name}"),
            other => unreachable!("{other:?} was refused as an error"),
        });
        let out = if self.answer_type().is_some() { "out := " } else { "" };
        let leave = self.leave();
        let failed = if self.throws() {
            format!("\tif err = status_.err(ctx_, {read}); err != nil {{\n\t\t{leave}\n\t}}\n")
        } else {
            "\tstatus_.must()\n".to_owned()
        };
        let (text, context) = match &self.callable.async_data {
            Some(data) => {
                let complete = &data.ffi_rust_future_complete.0;
                let kind = complete.rsplit_once("_complete_").map(|it| it.1).unwrap_or_default();
                let kind = future_kind(kind);
                let text = format!(
                    "\tfuture := C.{function}({arguments})\n\tawait(ctx, future, &{kind})\n\tdefer {kind}.free(future)\n\tstatus := newStatus()\n\t{out}C.{complete}(future, status)\n"
                );
                (text, "ctx")
            }
            None => (format!("\tstatus := newStatus()\n\t{out}C.{function}({arguments})\n"), "nil"),
        };
        text + &failed.replace("status_", "(*callStatus)(status)").replace("ctx_", context)
    }

    fn answer(&self) -> String {
        let Some(ty) = self.answer_type() else {
            return if self.throws() { "\treturn nil\n".to_owned() } else { String::new() };
        };
        let value = match ty {
            Type::Interface { name, .. } => format!("new{name}Object(out)"),
            Type::Boolean => "out != 0".to_owned(),
            Type::String => "textFromRust(out)".to_owned(),
            Type::Int32 | Type::Int64 | Type::UInt32 | Type::UInt64 | Type::Float64 => {
                format!("{}(out)", types::go(ty, self.config))
            }
            _ => {
                let error = if self.throws() { ", nil" } else { "" };
                return format!("\tr := fromRust(out)\n\treturn {}{error}\n", types::read(ty, self.config));
            }
        };
        format!("\treturn {value}{}\n", if self.throws() { ", nil" } else { "" })
    }
}

fn is_buffer(argument: &Argument) -> bool {
    matches!(argument.ty.ffi_type, FfiType::RustBuffer(_))
}
