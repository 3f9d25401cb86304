//! The empty qcow2 overlay that a machine writes to, over an image that nobody writes to.

/// Bytes of a cluster, qcow2's default.
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;

/// Where the parts lie: header, refcount table, first refcount block, then the L1 table, a cluster each.
const REFCOUNT_TABLE: u64 = CLUSTER;
const REFCOUNT_BLOCK: u64 = 2 * CLUSTER;
const L1_TABLE: u64 = 3 * CLUSTER;

/// Bytes of the version 3 header.
const HEADER_LEN: u32 = 104;

/// The bytes of an empty qcow2 file, version 3, of this virtual size in bytes (a multiple of 512, at most 4 PiB).
///
/// Written here rather than by `qemu-img create`, which takes 8 ms to do it. It names no backing file: the command line
/// does. The format: <https://www.qemu.org/docs/master/interop/qcow2.html>.
pub fn empty_qcow2(virtual_size: u64) -> Vec<u8> {
    // One L2 table maps 512 MiB: 8,192 clusters of 64 KiB.
    let l1_entries = virtual_size.div_ceil(CLUSTER * (CLUSTER / 8)).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;
    let mut file = Vec::new();
    file.extend_from_slice(b"QFI\xfb");
    let mut u32_field = |value: u32| file.extend_from_slice(&value.to_be_bytes());
    u32_field(3);
    [0, 0, 0, CLUSTER_BITS].into_iter().for_each(&mut u32_field); // no backing file: offset (64 bits), length; cluster size
    file.extend_from_slice(&virtual_size.to_be_bytes());
    file.extend_from_slice(&0u32.to_be_bytes()); // no encryption
    file.extend_from_slice(&u32::try_from(l1_entries).unwrap_or(u32::MAX).to_be_bytes());
    file.extend_from_slice(&L1_TABLE.to_be_bytes());
    file.extend_from_slice(&REFCOUNT_TABLE.to_be_bytes());
    file.extend_from_slice(&1u32.to_be_bytes()); // clusters of the refcount table
    file.extend_from_slice(&[0; 12]); // no internal snapshots
    file.extend_from_slice(&[0; 24]); // no incompatible, compatible or autoclear features
    file.extend_from_slice(&4u32.to_be_bytes()); // refcounts of 2^4 bits
    file.extend_from_slice(&HEADER_LEN.to_be_bytes());
    debug_assert_eq!(file.len(), HEADER_LEN as usize);
    let put = |file: &mut Vec<u8>, offset: u64, bytes: &[u8]| {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        file.resize(offset, 0);
        file.extend_from_slice(bytes);
    };
    put(&mut file, REFCOUNT_TABLE, &REFCOUNT_BLOCK.to_be_bytes());
    let ones: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    put(&mut file, REFCOUNT_BLOCK, &ones);
    put(&mut file, clusters * CLUSTER, &[]);
    file
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn qemu_finds_no_fault_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for size in [512, 4 << 30, 100 << 30, 5 << 40] {
            let path = dir.path().join(format!("{size}.qcow2"));
            std::fs::write(&path, empty_qcow2(size)).unwrap();
            let run = |verb: &[&str]| {
                let output =
                    Command::new("qemu-img").args(verb).arg(&path).output().expect("qemu-img is installed");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
            };
            let check = run(&["check", "--output=json", "-f", "qcow2"]);
            assert_eq!(check["check-errors"], 0);
            assert!(check.get("leaks").is_none() && check.get("corruptions").is_none(), "{check}");
            assert_eq!(run(&["info", "--output=json"])["virtual-size"], size);
        }
    }
}
