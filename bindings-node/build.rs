//! Tells the linker of macOS that Node brings what the addon lacks.

fn main() {
    napi_build::setup();
}
