//! Labels that nobody honest sets.

/// Values of the label `host` that would lead elsewhere, as a part of an address or as a name, or that
/// are almost the host `moscow`.
pub const HOSTS: [&str; 19] = [
    "x:19959/evil?",
    "evil:1",
    "evil/x",
    "evil?x",
    "evil#x",
    "user@evil",
    "moscow@evil",
    "evil.example.org",
    "moscow.evil.example.org",
    "127.0.0.1",
    "[::1]",
    "::1",
    "",
    "moscow\nkiev",
    "moscow ",
    "MOSCOW:1",
    "-x",
    "{{ }}",
    "{{ .GroupLabels.user }}",
];
