//! Images: root file systems with their kernel and agent, addressed by digest, named by tags.
//!
//! ```text
//! manifests/<digest>.json   what the image is made of; <digest> is its SHA-256 in 64 hexadecimal digits
//! rootfs/<digest>.raw       root file systems, shared by images that differ in kernel or agent alone
//! boot/<digest>/            vmlinux and initrd
//! tags/<tag>                text: an image's digest
//! ```
//!
//! No path inside names one outside, so the folder can be moved.

mod boot;
mod build;
mod command;
mod cpio;
mod manifest;
mod name;
mod recipe;
mod store;

pub use build::Builder;
pub use manifest::Manifest;
pub(crate) use manifest::hex;
pub use name::{InvalidImageName, validate_image_name};
pub use recipe::Recipe;
#[cfg(test)]
pub(crate) use store::write_fake;
pub use store::{Image, ImageError, ImageStore};
