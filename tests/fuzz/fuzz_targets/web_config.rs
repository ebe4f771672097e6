#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| procstorm_tests::fuzzing::web_config(data));
