//! Which types cross in which direction: Go needs no code for the other.

use std::collections::BTreeSet;

use uniffi_bindgen::pipeline::general::{Callable, Field, Namespace, Type, TypeDefinition};

/// The names of types that Go writes, and of those that it reads.
#[derive(Default)]
pub struct Uses {
    pub written: BTreeSet<String>,
    pub read: BTreeSet<String>,
}

impl Uses {
    pub fn of(namespace: &Namespace) -> Self {
        let mut uses = Self::default();
        for callable in callables(namespace) {
            for argument in &callable.arguments {
                reach(namespace, &argument.ty.ty, &mut uses.written);
            }
            let answers = [&callable.return_type.ty, &callable.throws_type.ty];
            for answer in answers.into_iter().flatten() {
                // Objects that are answered are made of their handle, not read.
                if !matches!(answer.ty, Type::Interface { .. }) {
                    reach(namespace, &answer.ty, &mut uses.read);
                }
            }
        }
        uses
    }
}

fn callables(namespace: &Namespace) -> impl Iterator<Item = &Callable> {
    let methods = namespace.type_definitions.iter().flat_map(|definition| match definition {
        TypeDefinition::Interface(it) => {
            let constructors = it.constructors.iter().map(|it| &it.callable);
            constructors.chain(it.methods.iter().map(|it| &it.callable)).collect()
        }
        _ => Vec::new(),
    });
    namespace.functions.iter().map(|it| &it.callable).chain(methods)
}

fn reach(namespace: &Namespace, ty: &Type, reached: &mut BTreeSet<String>) {
    match ty {
        Type::Optional { inner_type } | Type::Sequence { inner_type } => {
            reach(namespace, inner_type, reached);
        }
        Type::Map { value_type, .. } => reach(namespace, value_type, reached),
        Type::Record { name, .. } | Type::Enum { name, .. } | Type::Interface { name, .. }
            if reached.insert(name.clone()) =>
        {
            for field in fields(namespace, name) {
                reach(namespace, &field.ty.ty, reached);
            }
        }
        _ => {}
    }
}

/// The fields of a record or an error.
fn fields<'a>(namespace: &'a Namespace, name: &str) -> Vec<&'a Field> {
    let definitions = namespace.type_definitions.iter();
    definitions
        .flat_map(|definition| match definition {
            TypeDefinition::Record(it) if it.name == name => it.fields.iter().collect(),
            TypeDefinition::Enum(it) if it.name == name => {
                it.variants.iter().flat_map(|variant| &variant.fields).collect()
            }
            _ => Vec::new(),
        })
        .collect()
}
