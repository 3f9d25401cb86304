use std::ffi::OsString;

use forkyard_protocol::link;

use super::super::Accelerator;

/// Host-side memory of the software emulator's translated code, in MiB. The default of 1 GiB would make machines' real
/// size unpredictable; 64 MiB holds a Python interpreter's working set.
const TCG_CODE_MB: u32 = 64;

/// What the command line depends on; the files have fixed names in QEMU's working directory.
#[derive(Debug, Clone)]
pub struct Argv<'a> {
    /// The machine's id; also the marker by which its process is found.
    pub sandbox_id: &'a str,
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// The host's time-stamp counter in kHz, if known.
    pub tsc_khz: Option<u64>,
    /// Layers of its disk over the image; the last is the one that it writes to.
    pub layers: usize,
    /// Whether it goes on from frozen memory, which its monitor is then told to take in.
    pub incoming: bool,
    /// Whether QEMU can map its memory's file without the right to write to it: from 9.0 on
    /// (<https://www.qemu.org/docs/master/system/invocation.html>, `memory-backend-file`, `rom`).
    pub read_only_ram: bool,
    /// The monitor's listening socket, inherited.
    pub qmp_fd: i32,
    /// The agent channel's listening socket, inherited.
    pub agent_fd: i32,
    /// The listening socket of its network card's frames, inherited; none for a machine without such a card.
    pub network_fd: Option<i32>,
}

/// The name that QEMU knows the network card by.
pub const NETWORK_CARD: &str = "nic0";

/// The guest's hardware address, the same for all: each machine has a link of its own.
fn mac() -> String {
    link::GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":")
}

/// Initialisers of the kernel that cost boot time under emulation and that no guest needs: self-tests, compiled-in
/// certificates, tracing tables.
const SKIPPED_INITCALLS: &str = "bpf_tcp_ca_kfunc_init,load_system_certificate_list,jent_mod_init,\
    bpf_dummy_struct_ops_init,trace_eval_init,init_encrypted,crypto_algapi_init";

/// The file of one of a disk's layers, in the machine's directory.
pub fn layer_file(layer: usize) -> String {
    format!("layer-{layer}.qcow2")
}

/// The name that QEMU knows a layer's disk by.
pub fn disk_node(layer: usize) -> String {
    format!("disk-{layer}")
}

impl Argv<'_> {
    /// QEMU's arguments, without the program's name.
    pub fn build(&self) -> Vec<OsString> {
        let mut args: Vec<String> = Vec::with_capacity(64);
        let mut add = |items: &[&str]| args.extend(items.iter().map(|item| (*item).to_owned()));
        add(&["-name", &format!("guest={}", self.sandbox_id)]);
        match self.accelerator {
            Accelerator::Tcg => add(&["-accel", &format!("tcg,tb-size={TCG_CODE_MB}"), "-cpu", "qemu64"]),
            Accelerator::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        }
        // One version of the machine, so that a snapshot means the same to every QEMU. Without HPET an idle machine costs
        // 0.3 % of a host CPU instead of 2 to 4 %.
        add(&["-M", "pc-q35-7.2,hpet=off,vmport=off,smbus=off,sata=off,usb=off,memory-backend=ram"]);
        add(&["-smp", &self.vcpus.to_string(), "-m", &format!("{}M", self.memory_mb)]);
        add(&["-object", &self.ram()]);
        if self.incoming {
            // The state that is taken in comes from a live machine and has no section for it.
            add(&["-incoming", "defer", "-global", "migration.send-configuration=off"]);
        }
        add(&["-nodefaults", "-no-user-config", "-display", "none"]);
        // A guest that ends stays to be asked for its last words; whoever follows it then quits.
        add(&["-no-reboot", "-no-shutdown"]);
        add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        add(&["-kernel", "vmlinux", "-initrd", "initrd", "-append", &self.kernel_command_line()]);
        add(&["-chardev", &format!("socket,id=qmp,fd={},server=on,wait=off", self.qmp_fd)]);
        add(&["-mon", "chardev=qmp,mode=control"]);
        // A ring in memory: a guest that writes without end to its console must not fill the host's disk.
        add(&["-chardev", "ringbuf,id=console,size=65536", "-serial", "chardev:console"]);
        add(&["-chardev", &format!("socket,id=agent,fd={},server=on,wait=off", self.agent_fd)]);
        add(&["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent"]);
        add(&["-blockdev", "driver=file,filename=base.raw,node-name=base-file,read-only=on,locking=off"]);
        add(&["-blockdev", "driver=raw,file=base-file,node-name=base,read-only=on"]);
        for layer in 0..self.layers {
            let access = if layer + 1 < self.layers { "read-only=on" } else { "discard=unmap" };
            let locking = if layer + 1 < self.layers { ",locking=off" } else { "" };
            let backing = layer.checked_sub(1).map_or_else(|| "base".to_owned(), disk_node);
            let (file, disk) = (layer_file(layer), disk_node(layer));
            add(&[
                "-blockdev",
                &format!("driver=file,filename={file},node-name=file-{layer},{access}{locking}"),
            ]);
            add(&[
                "-blockdev",
                &format!("driver=qcow2,file=file-{layer},backing={backing},node-name={disk},{access}"),
            ]);
        }
        add(&["-device", &format!("virtio-blk-pci,drive={},id=vda", disk_node(self.layers - 1))]);
        // qemu64 has no RDRAND: without this device Python waits for entropy for ever.
        add(&["-device", "virtio-rng-pci"]);
        // Without it every fork of a machine would return the same random bytes.
        add(&["-device", "vmgenid,guid=auto,id=vmgenid"]);
        if let Some(fd) = self.network_fd {
            // The last on the bus, so that all others have the addresses that they have without it. While nobody is connected,
            // what the guest sends is dropped.
            add(&["-netdev", &format!("stream,id=net0,server=on,addr.type=fd,addr.str={fd}")]);
            let mac = mac();
            add(&["-device", &format!("virtio-net-pci,netdev=net0,id={NETWORK_CARD},mac={mac},romfile=")]);
        }
        args.into_iter().map(OsString::from).collect()
    }

    /// The guest's memory: its file, of which the machine changes copies alone.
    fn ram(&self) -> String {
        let size = self.memory_mb;
        let access = if self.read_only_ram { ",readonly=on,rom=off" } else { "" };
        format!("memory-backend-file,id=ram,mem-path=ram,size={size}M,share=off{access}")
    }

    fn kernel_command_line(&self) -> String {
        let mut words = vec![
            "console=ttyS0",
            "quiet",
            "panic=-1",
            "random.trust_cpu=on",
            "8250.nr_uarts=1",
            "i8042.noaux",
            "i8042.nokbd",
            "i8042.nopnp",
            "audit=0",
            "apparmor=0",
        ];
        let skipped = format!("initcall_blacklist={SKIPPED_INITCALLS}");
        words.push(&skipped);
        let tsc = self.tsc_khz.map(|khz| format!("tsc_early_khz={khz}"));
        if self.accelerator == Accelerator::Tcg {
            // An emulated guest shares no processor state with anybody, so the defences would only slow it. Under KVM
            // they stay.
            words.extend(["mitigations=off", "nokaslr", "no_timer_check"]);
            if let Some(tsc) = &tsc {
                words.extend([tsc.as_str(), "tsc=reliable"]);
            }
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(accelerator: Accelerator) -> Vec<String> {
        let argv = Argv {
            sandbox_id: "sbx_1",
            accelerator,
            vcpus: 2,
            memory_mb: 512,
            tsc_khz: Some(2_450_000),
            layers: 3,
            incoming: false,
            read_only_ram: false,
            qmp_fd: 10,
            agent_fd: 11,
            network_fd: Some(12),
        };
        argv.build().into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    fn value(args: &[String], option: &str) -> String {
        let at = args.iter().position(|arg| arg == option).unwrap_or_else(|| panic!("no {option}"));
        args[at + 1].clone()
    }

    #[test]
    fn a_machine_gets_what_it_asked_for() {
        let args = args(Accelerator::Tcg);
        assert_eq!(value(&args, "-smp"), "2");
        assert_eq!(value(&args, "-m"), "512M");
        assert_eq!(value(&args, "-name"), "guest=sbx_1");
        assert!(value(&args, "-append").contains("tsc_early_khz=2450000 tsc=reliable"));
    }

    #[test]
    fn only_the_top_layer_is_written_to() {
        let args = args(Accelerator::Tcg);
        let nodes: Vec<_> = args.iter().filter(|arg| arg.contains("node-name=disk-")).collect();
        assert_eq!(nodes.len(), 3);
        assert!(nodes[0].contains("backing=base,") && nodes[0].contains("read-only=on"));
        assert!(nodes[2].contains("backing=disk-1,") && !nodes[2].contains("read-only"));
        assert!(args.iter().any(|arg| arg == "virtio-blk-pci,drive=disk-2,id=vda"));
    }

    #[test]
    fn kvm_guests_keep_their_defences() {
        let args = args(Accelerator::Kvm);
        assert_eq!(value(&args, "-cpu"), "host");
        assert!(!value(&args, "-append").contains("mitigations=off"));
    }

    #[test]
    fn every_machine_is_confined_and_its_card_leads_to_one_socket() {
        for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
            let args = args(accelerator);
            assert!(value(&args, "-sandbox").contains("spawn=deny"));
            assert_eq!(value(&args, "-netdev"), "stream,id=net0,server=on,addr.type=fd,addr.str=12");
            assert!(args.iter().any(|arg| arg.ends_with("mac=52:54:00:12:34:56,romfile=")));
            assert!(!args.iter().any(|arg| arg.contains("user,") || arg.contains("tap")));
        }
    }

    #[test]
    fn an_unknown_rate_is_not_told() {
        for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
            let argv = Argv {
                sandbox_id: "sbx_1",
                accelerator,
                vcpus: 1,
                memory_mb: 256,
                tsc_khz: None,
                layers: 1,
                incoming: false,
                read_only_ram: false,
                qmp_fd: 10,
                agent_fd: 11,
                network_fd: None,
            };
            assert!(!argv.build().iter().any(|arg| arg.to_string_lossy().contains("net")));
            assert!(!argv.kernel_command_line().contains("tsc"));
        }
    }
}
