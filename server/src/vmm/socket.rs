//! Unix sockets whatever the length of their paths: the kernel takes at most 107 bytes, data directories may lie deep.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// Bytes that the kernel's `sun_path` holds before its closing zero.
const MAX_PATH: usize = 107;

/// Listens on a socket.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(&Short::of(path)?.path)
}

/// Connects to a socket.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let short = Short::of(path)?;
    UnixStream::connect(&short.path).await
}

/// A path that fits. A long one leads through a descriptor of its folder, so it holds as long as this value only.
struct Short {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= MAX_PATH {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_may_lie_deep() {
        let dir = tempfile::tempdir().unwrap();
        for depth in [0, 300] {
            let folder = dir.path().join("d".repeat(depth.min(200))).join("e".repeat(depth / 3));
            std::fs::create_dir_all(&folder).unwrap();
            let path = folder.join("qmp");
            let listener = bind(&path).unwrap();
            connect(&path).await.unwrap();
            listener.accept().unwrap();
            assert!(path.exists());
        }
    }
}
