//! What each type is in Go and in C, and how it crosses.

use uniffi_bindgen::pipeline::general::{FfiType, Type};

use crate::config::Config;
use crate::names;

/// The type in Go.
pub fn go(ty: &Type, config: &Config) -> String {
    match ty {
        Type::Boolean => "bool".to_owned(),
        Type::Int32 => "int".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::UInt32 => "uint32".to_owned(),
        Type::UInt64 => "uint64".to_owned(),
        Type::Float64 => "float64".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "[]byte".to_owned(),
        Type::Timestamp => "time.Time".to_owned(),
        Type::Duration => "time.Duration".to_owned(),
        Type::Interface { name, .. } => format!("*{}", names::type_name(name, config)),
        Type::Sequence { inner_type } => format!("[]{}", go(inner_type, config)),
        Type::Map { value_type, .. } => format!("map[string]{}", go(value_type, config)),
        Type::Optional { inner_type } => match &**inner_type {
            // These have a value of their own for none: the zero time and nil.
            Type::Timestamp | Type::Map { .. } | Type::Bytes => go(inner_type, config),
            _ => format!("*{}", go(inner_type, config)),
        },
        other => names::type_name(named(other), config),
    }
}

/// A statement that writes a value.
pub fn write(ty: &Type, value: &str, config: &Config) -> String {
    match ty {
        Type::Optional { inner_type } => match &**inner_type {
            Type::Timestamp => format!("w.optionalTime({value})"),
            Type::Map { .. } | Type::Bytes => {
                let inner = write(inner_type, value, config);
                format!("if w.flag({value} != nil) {{\n{inner}\n}}")
            }
            inner => format!("writeOptional(w, {value}, {})", writer(inner, config)),
        },
        Type::Sequence { inner_type } => format!("writeSlice(w, {value}, {})", writer(inner_type, config)),
        Type::Map { value_type, .. } => format!("writeMap(w, {value}, {})", writer(value_type, config)),
        Type::Record { .. } | Type::Enum { .. } => format!("{}(w, {value})", writer(ty, config)),
        plain => format!("w.{}({value})", method(plain)),
    }
}

/// An expression that reads a value.
pub fn read(ty: &Type, config: &Config) -> String {
    match ty {
        Type::Optional { inner_type } => match &**inner_type {
            Type::Timestamp => "r.optionalTime()".to_owned(),
            Type::Map { .. } | Type::Bytes => format!("readOr(r, {})", reader(inner_type, config)),
            inner => format!("readOptional(r, {})", reader(inner, config)),
        },
        Type::Sequence { inner_type } => format!("readSlice(r, {})", reader(inner_type, config)),
        Type::Map { value_type, .. } => format!("readMap(r, {})", reader(value_type, config)),
        Type::Record { .. } | Type::Enum { .. } | Type::Interface { .. } => {
            format!("{}(r)", reader(ty, config))
        }
        plain => format!("r.{}()", method(plain)),
    }
}

fn writer(ty: &Type, config: &Config) -> String {
    match ty {
        Type::Record { name, .. } | Type::Enum { name, .. } => format!("write{name}"),
        Type::Optional { .. } | Type::Sequence { .. } | Type::Map { .. } => {
            format!("func(w *writer, v {}) {{ {} }}", go(ty, config), write(ty, "v", config))
        }
        plain => format!("(*writer).{}", method(plain)),
    }
}

fn reader(ty: &Type, config: &Config) -> String {
    match ty {
        Type::Record { name, .. } | Type::Enum { name, .. } | Type::Interface { name, .. } => {
            format!("read{name}")
        }
        Type::Optional { .. } | Type::Sequence { .. } | Type::Map { .. } => {
            format!("func(r *reader) {} {{ return {} }}", go(ty, config), read(ty, config))
        }
        plain => format!("(*reader).{}", method(plain)),
    }
}

/// The method of Go's writer and reader for a type that holds no other.
fn method(ty: &Type) -> &'static str {
    match ty {
        Type::Boolean => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::UInt32 => "uint32",
        Type::UInt64 => "uint64",
        Type::Float64 => "float64",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Timestamp => "time",
        Type::Duration => "duration",
        other => unreachable!("{other:?} was refused"),
    }
}

/// The name of a type that has one.
fn named(ty: &Type) -> &str {
    match ty {
        Type::Record { name, .. } | Type::Enum { name, .. } | Type::Interface { name, .. } => name,
        other => unreachable!("{other:?} was refused"),
    }
}

/// Whether a Go value of the type may be one that cannot cross: text that is not UTF-8, a word that is no variant, a number out
/// of range.
pub fn may_fail(ty: &Type) -> bool {
    !matches!(
        ty,
        Type::Boolean | Type::Int64 | Type::UInt32 | Type::UInt64 | Type::Float64 | Type::Interface { .. }
    )
}

/// The type in C.
pub fn c(ty: &FfiType) -> Option<&'static str> {
    Some(match ty {
        FfiType::Int8 => "int8_t",
        FfiType::UInt8 => "uint8_t",
        FfiType::Int16 => "int16_t",
        FfiType::UInt16 => "uint16_t",
        FfiType::Int32 => "int32_t",
        FfiType::UInt32 => "uint32_t",
        FfiType::Int64 => "int64_t",
        FfiType::UInt64 | FfiType::Handle(_) => "uint64_t",
        FfiType::Float32 => "float",
        FfiType::Float64 => "double",
        FfiType::RustBuffer(_) => "RustBuffer",
        FfiType::ForeignBytes => "ForeignBytes",
        FfiType::Function(_) => "RustFutureContinuation",
        _ => return None,
    })
}
