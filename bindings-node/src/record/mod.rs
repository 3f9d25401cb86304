//! What crosses between JavaScript and the core, one noun one file.

pub mod event;
pub mod file;
pub mod key;
pub mod managed;
pub mod network;
pub mod pool;
pub mod port;
pub mod process;
pub mod pty;
pub mod sandbox;
pub mod server;
pub mod snapshot;
pub mod swarm;

/// An enum that mirrors one of the core's, both ways. It is written out above its use: comments do not survive a macro on
/// their way to TypeScript.
macro_rules! mirror {
    ($name:ident = $core:ty { $($variant:ident),* $(,)? }) => {
        impl From<$core> for $name {
            fn from(value: $core) -> Self {
                match value { $(<$core>::$variant => Self::$variant,)* }
            }
        }

        impl From<$name> for $core {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant,)* }
            }
        }
    };
}
pub(crate) use mirror;
