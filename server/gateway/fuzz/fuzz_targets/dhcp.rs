#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkyard_gateway_fuzz::frames::dhcp(bytes));
