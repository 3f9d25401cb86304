//! One virtual CPU that runs a few instructions in long mode: what the probe's child process does.

use std::io;

/// The port that the guest's code writes its answer to.
const PORT: u8 = 0xf4;

/// What the code writes there when everything before it worked: 3.0 + 3.0.
const ANSWER: u8 = 6;

/// Guest memory: the one page of 2 MiB that its page tables map.
const MEMORY: usize = 2 * 1024 * 1024;

/// Guest-physical addresses.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PAGE_DIRECTORY: u64 = 0x3000;
const CODE: u64 = 0x4000;
const STACK: u64 = 0x8000;

/// A bounded loop, SSE arithmetic, CPUID and an OUT: what every kernel does in its first moments, and what a KVM that
/// cannot run ordinary guests fails at.
#[rustfmt::skip]
const PROGRAM: [u8; 39] = [
    0xb9, 0xa0, 0x86, 0x01, 0x00,   // mov ecx, 100000
    0xff, 0xc9,                     // dec ecx
    0x75, 0xfc,                     // jnz -4
    0xb8, 0x03, 0x00, 0x00, 0x00,   // mov eax, 3
    0xf2, 0x0f, 0x2a, 0xc0,         // cvtsi2sd xmm0, eax
    0xf2, 0x0f, 0x58, 0xc0,         // addsd xmm0, xmm0
    0xf2, 0x0f, 0x2c, 0xf0,         // cvttsd2si esi, xmm0
    0x31, 0xc0,                     // xor eax, eax
    0x0f, 0xa2,                     // cpuid
    0x85, 0xdb,                     // test ebx, ebx: the vendor's first letters
    0x74, 0x04,                     // jz to hlt
    0x89, 0xf0,                     // mov eax, esi
    0xe6, PORT,                     // out PORT, al
    0xf4,                           // hlt
];

/// Guest memory, aligned as KVM wants it.
#[repr(align(4096))]
#[derive(Clone)]
struct Page([u8; 4096]);

fn memory() -> Vec<Page> {
    // Present and writable; in the page directory also "this is a page of 2 MiB".
    const TABLE: u64 = 0b11;
    const LARGE: u64 = 0b1000_0011;
    let mut pages = vec![Page([0; 4096]); MEMORY / 4096];
    let mut put = |at: u64, bytes: &[u8]| {
        let page = usize::try_from(at / 4096).unwrap_or(usize::MAX);
        pages[page].0[..bytes.len()].copy_from_slice(bytes);
    };
    put(PML4, &(PDPT | TABLE).to_le_bytes());
    put(PDPT, &(PAGE_DIRECTORY | TABLE).to_le_bytes());
    put(PAGE_DIRECTORY, &LARGE.to_le_bytes());
    put(CODE, &PROGRAM);
    pages
}

/// Makes the machine, calls `ready`, runs it to its end. The error says what went wrong.
///
/// Nothing bounds the run: a KVM that does not work may never come back, which is why this is a process's whole work.
#[cfg(target_arch = "x86_64")]
pub fn run(ready: impl FnOnce()) -> io::Result<()> {
    use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_userspace_memory_region};
    use kvm_ioctls::{Kvm, VcpuExit};

    let step = |what: &'static str| {
        move |error: kvm_ioctls::Error| {
            io::Error::other(format!("{what}: {}", io::Error::from_raw_os_error(error.errno())))
        }
    };
    let kvm = Kvm::new().map_err(step("opening /dev/kvm"))?;
    let vm = kvm.create_vm().map_err(step("creating a machine"))?;
    let memory = memory();
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: memory.as_ptr() as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: `memory` has this size, is declared before `vcpu` and so outlives it, and nothing here touches it again.
    unsafe { vm.set_user_memory_region(region) }.map_err(step("giving it memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(step("creating its processor"))?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(step("reading CPUID"))?;
    vcpu.set_cpuid2(&cpuid).map_err(step("setting CPUID"))?;
    let mut system = vcpu.get_sregs().map_err(step("reading registers"))?;
    enter_long_mode(&mut system);
    vcpu.set_sregs(&system).map_err(step("entering long mode"))?;
    let registers = kvm_regs { rip: CODE, rsp: STACK, rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&registers).map_err(step("setting registers"))?;
    ready();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, [ANSWER])) if port == u16::from(PORT) => return Ok(()),
            Ok(VcpuExit::InternalError) => return Err(internal_error(&mut vcpu)),
            Ok(exit) => return Err(io::Error::other(format!("the guest's code ended with {exit:?}"))),
            Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
            Err(error) => return Err(step("running it")(error)),
        }
    }
}

/// What KVM says of its own failure.
#[cfg(target_arch = "x86_64")]
fn internal_error(vcpu: &mut kvm_ioctls::VcpuFd) -> io::Error {
    // SAFETY: after this exit KVM has filled this member of the union; every bit pattern is valid for its integers.
    let suberror = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
    io::Error::other(match suberror {
        // KVM_INTERNAL_ERROR_EMULATION (linux/kvm.h): the code did not run on the processor, as it does where KVM works.
        1 => "KVM emulates the guest's instructions, and cannot emulate SSE".to_owned(),
        suberror => format!("KVM failed inside (suberror {suberror})"),
    })
}

/// On other architectures there is nothing to run x86 guests on.
#[cfg(not(target_arch = "x86_64"))]
pub fn run(_: impl FnOnce()) -> io::Result<()> {
    Err(io::Error::other("this host's processor is no x86-64"))
}

#[cfg(target_arch = "x86_64")]
fn enter_long_mode(system: &mut kvm_bindings::kvm_sregs) {
    // Intel's manual, volume 3: CR0 PE, MP, ET, NE, WP, PG; CR4 PAE, OSFXSR, OSXMMEXCPT; EFER LME, LMA.
    system.cr0 = 0x8001_0033;
    system.cr3 = PML4;
    system.cr4 = 0x620;
    system.efer = 0x500;
    let code = kvm_bindings::kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x8,
        type_: 0b1011,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_bindings::kvm_segment::default()
    };
    let data = kvm_bindings::kvm_segment { selector: 0x10, type_: 0b0011, db: 1, l: 0, ..code };
    system.cs = code;
    for segment in [&mut system.ds, &mut system.es, &mut system.fs, &mut system.gs, &mut system.ss] {
        *segment = data;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_jumps_land_on_instructions() {
        // dec ecx; the branch back is relative to the instruction that follows it.
        assert_eq!(&PROGRAM[5..9], [0xff, 0xc9, 0x75, 0xfc]);
        let halt = PROGRAM.len() - 1;
        let branch = PROGRAM.windows(2).position(|pair| pair == [0x74, 0x04]).unwrap();
        assert_eq!(branch + 2 + usize::from(PROGRAM[branch + 1]), halt);
        assert_eq!(PROGRAM[halt], 0xf4);
    }

    #[test]
    fn the_page_tables_lead_to_the_program() {
        let memory = memory();
        let word = |at: u64| {
            let page = &memory[usize::try_from(at / 4096).unwrap()].0;
            u64::from_le_bytes(page[..8].try_into().unwrap())
        };
        assert_eq!(word(PML4) & !0xfff, PDPT);
        assert_eq!(word(PDPT) & !0xfff, PAGE_DIRECTORY);
        assert_eq!(word(PAGE_DIRECTORY), 0x83, "one page of 2 MiB, mapped to itself");
        assert_eq!(memory[usize::try_from(CODE / 4096).unwrap()].0[..PROGRAM.len()], PROGRAM);
        assert_eq!(memory.as_ptr() as usize % 4096, 0);
    }
}
