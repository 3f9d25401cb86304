//! What this generator does not cover, refused by name.

use anyhow::{Result, bail, ensure};
use uniffi_bindgen::pipeline::general::{
    Callable, CallableKind, Enum, Interface, Namespace, ObjectImpl, Record, Type, TypeDefinition,
    UniffiTraitMethods,
};

use crate::types;

pub fn check(namespace: &Namespace) -> Result<()> {
    for function in &namespace.functions {
        callable(&function.callable.name, &function.callable)?;
    }
    for definition in &namespace.type_definitions {
        match definition {
            TypeDefinition::Interface(it) => interface(it)?,
            TypeDefinition::Record(it) => record(it)?,
            TypeDefinition::Enum(it) => enumeration(it)?,
            TypeDefinition::CallbackInterface(it) => {
                bail!("{}: callback interfaces are not covered", it.name)
            }
            TypeDefinition::Custom(it) => bail!("{}: custom types are not covered", it.name),
            TypeDefinition::External(it) => bail!("{}: types of other crates are not covered", it.name),
            TypeDefinition::Simple(_)
            | TypeDefinition::Box(_)
            | TypeDefinition::Optional(_)
            | TypeDefinition::Sequence(_)
            | TypeDefinition::Map(_)
            | TypeDefinition::Set(_) => {}
        }
    }
    Ok(())
}

fn interface(it: &Interface) -> Result<()> {
    let name = &it.name;
    ensure!(matches!(it.imp, ObjectImpl::Struct), "{name}: traits are not covered, only objects");
    ensure!(it.trait_impls.is_empty(), "{name}: objects that implement traits are not covered");
    traits(name, &it.uniffi_trait_methods)?;
    for constructor in &it.constructors {
        let callable = &constructor.callable;
        let path = format!("{name}.{}", callable.name);
        ensure!(callable.is_primary_constructor(), "{path}: constructors not called new are not covered");
        ensure!(!callable.is_async(), "{path}: async constructors are not covered");
        self::callable(&path, callable)?;
    }
    for method in &it.methods {
        let path = format!("{name}.{}", method.callable.name);
        ensure!(method.callable.name != "close", "{path}: Go's own Close has this name");
        callable(&path, &method.callable)?;
    }
    Ok(())
}

fn traits(name: &str, methods: &UniffiTraitMethods) -> Result<()> {
    let UniffiTraitMethods { debug_fmt, display_fmt, eq_eq, eq_ne, hash_hash, ord_cmp } = methods;
    let any = [debug_fmt, display_fmt, eq_eq, eq_ne, hash_hash, ord_cmp].into_iter().any(Option::is_some);
    ensure!(!any, "{name}: exported traits such as Display are not covered");
    Ok(())
}

fn record(it: &Record) -> Result<()> {
    let name = &it.name;
    ensure!(
        it.methods.is_empty() && it.constructors.is_empty(),
        "{name}: methods of records are not covered"
    );
    ensure!(!it.recursive, "{name}: records that hold themselves are not covered");
    traits(name, &it.uniffi_trait_methods)?;
    for field in &it.fields {
        let path = format!("{name}.{}", field.name);
        ensure!(!field.name.is_empty(), "{name}: records without field names are not covered");
        ensure!(field.default.is_none(), "{path}: defaults are not covered: Go's zero values are");
        covered(&path, &field.ty.ty)?;
    }
    Ok(())
}

fn enumeration(it: &Enum) -> Result<()> {
    let name = &it.name;
    ensure!(it.methods.is_empty() && it.constructors.is_empty(), "{name}: methods of enums are not covered");
    traits(name, &it.uniffi_trait_methods)?;
    if !it.self_type.is_used_as_error {
        ensure!(it.is_flat && !it.variants.is_empty(), "{name}: enums that hold data are not covered");
        return Ok(());
    }
    let [variant] = it.variants.as_slice() else {
        bail!("{name}: errors of other than one variant are not covered: give the variant a code");
    };
    ensure!(!variant.fields.is_empty(), "{name}: errors without fields are not covered");
    for field in &variant.fields {
        ensure!(!field.name.is_empty(), "{name}: errors without field names are not covered");
        covered(&format!("{name}.{}", field.name), &field.ty.ty)?;
    }
    Ok(())
}

fn callable(path: &str, it: &Callable) -> Result<()> {
    ensure!(!matches!(it.kind, CallableKind::VTableMethod { .. }), "{path}: callbacks are not covered");
    let throws = it.throws_type.ty.is_some();
    if let Some(ty) = &it.throws_type.ty {
        ensure!(matches!(ty.ty, Type::Enum { .. }), "{path}: errors that are no enums are not covered");
    }
    for argument in &it.arguments {
        let (path, ty) = (format!("{path}({})", argument.name), &argument.ty.ty);
        ensure!(argument.default.is_none(), "{path}: defaults are not covered: Go has none");
        ensure!(!argument.is_borrowed_bytes(), "{path}: borrowed bytes are not covered");
        covered(&path, ty)?;
        let direct = matches!(ty, Type::Interface { .. });
        ensure!(direct || !holds_object(ty), "{path}: objects inside other arguments are not covered");
        ensure!(
            throws || !types::may_fail(ty),
            "{path}: may be given what cannot cross, so the call must throw"
        );
    }
    it.return_type.ty.as_ref().map_or(Ok(()), |ty| covered(path, &ty.ty))
}

/// Whether a value of the type has an object in it, as far as the type itself says.
pub fn holds_object(ty: &Type) -> bool {
    match ty {
        Type::Interface { .. } => true,
        Type::Optional { inner_type } | Type::Sequence { inner_type } => holds_object(inner_type),
        Type::Map { value_type, .. } => holds_object(value_type),
        _ => false,
    }
}

fn covered(path: &str, ty: &Type) -> Result<()> {
    match ty {
        Type::Boolean
        | Type::Int32
        | Type::Int64
        | Type::UInt32
        | Type::UInt64
        | Type::Float64
        | Type::String
        | Type::Bytes
        | Type::Timestamp
        | Type::Duration
        | Type::Record { .. }
        | Type::Enum { .. }
        | Type::Interface { .. } => Ok(()),
        Type::Optional { inner_type } => {
            let double = matches!(**inner_type, Type::Optional { .. } | Type::Sequence { .. });
            ensure!(!double, "{path}: optional options and lists are not covered: nil would be two things");
            covered(path, inner_type)
        }
        Type::Sequence { inner_type } => covered(path, inner_type),
        Type::Map { key_type, value_type } => {
            ensure!(matches!(**key_type, Type::String), "{path}: maps are covered with keys of text only");
            covered(path, value_type)
        }
        Type::UInt8 | Type::Int8 | Type::UInt16 | Type::Int16 | Type::Float32 => {
            bail!("{path}: numbers of fewer than 32 bits, and f32, are not covered")
        }
        Type::Set { .. } => bail!("{path}: sets are not covered"),
        Type::Box { .. } => bail!("{path}: boxes are not covered"),
        Type::CallbackInterface { name, .. } => bail!("{path}: callback interfaces ({name}) are not covered"),
        Type::Custom { name, .. } => bail!("{path}: custom types ({name}) are not covered"),
    }
}
