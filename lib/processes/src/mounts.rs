//! Mounts, as `mountinfo` lists them (`man 5 proc_pid_mountinfo`).
//!
//! The crate procfs parses a line. It is not given the whole file: one line that is not UTF-8 would
//! make it lose all, and any user who may mount a file system of their own (FUSE) can name a mount
//! point so. Nor does it undo the escapes of mount points, which [`mount_point`] does.

use std::path::PathBuf;

use procfs::process::MountInfo;

/// The mounts of a `mountinfo` file, in its order: of two on one place, the later one is on top. A line
/// that cannot be parsed is left out. Bytes that are not UTF-8 become U+FFFD.
pub fn mounts(mountinfo: &[u8]) -> impl DoubleEndedIterator<Item = MountInfo> {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    lines.filter_map(|line| MountInfo::from_line(&String::from_utf8_lossy(line)).ok())
}

/// Where it is mounted. The kernel writes blank, tab, newline and backslash of a path in octal
/// (`mangle_path` in `fs/seq_file.c`).
#[must_use]
pub fn mount_point(mount: &MountInfo) -> PathBuf {
    let escaped = mount.mount_point.to_string_lossy();
    let blanks = escaped.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    blanks.replace("\\134", "\\").into()
}

/// The value of an option of the mounted file system, such as `gid`.
#[must_use]
pub fn option<'m>(mount: &'m MountInfo, name: &str) -> Option<&'m str> {
    mount.super_options.get(name)?.as_deref()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use procfs::FromBufRead;
    use procfs::process::MountInfos;
    use proptest::prelude::*;

    use super::*;

    const MOUNTS: &[u8] = b"\
25 1 0:22 / /proc rw,nosuid shared:7 - proc proc rw,gid=42,hidepid=invisible
70 66 0:42 / /home/mallory/\xff\xfe rw - fuse.evil evil rw,user_id=1000
what a kernel of the future says
71 66 0:43 / /mnt/a\\040-\\040b\\134 rw master:2 - fuse s3fs rw,user_id=0,allow_other
";

    #[test]
    fn a_line_that_is_not_utf_8_or_not_understood_hides_no_other() {
        assert!(MountInfos::from_buf_read(MOUNTS).is_err(), "procfs itself could be used");
        let ids: Vec<i32> = mounts(MOUNTS).map(|mount| mount.mnt_id).collect();
        assert_eq!(ids, [25, 70, 71]);
    }

    /// A user of FUSE chooses both names (`fsname=`), and the kernel escapes only ASCII blanks.
    #[test]
    fn other_blanks_and_an_empty_name_move_no_field() {
        for (point, source) in
            [("/a\u{2003}b", "evil"), ("/a", "e\u{a0}vil\u{85}-"), ("/a\r\u{b}-", "")]
        {
            let line = format!("70 66 0:42 / {point} rw - fuse.evil {source} rw,user_id=1000\n");
            let mount = mounts(line.as_bytes()).next().expect("a mount");
            assert_eq!(option(&mount, "user_id"), Some("1000"), "{line}");
        }
    }

    #[test]
    fn mount_points_and_options_are_read_whole() {
        let last = mounts(MOUNTS).next_back().expect("a mount");
        assert_eq!(mount_point(&last), Path::new("/mnt/a - b\\"));
        assert_eq!(option(&last, "user_id"), Some("0"));
        assert_eq!(option(&last, "allow_other"), None, "it has no value");
        assert_eq!(option(&last, "hidepid"), None);
    }

    /// Lines that look like one of `mountinfo`, with anything in their fields.
    fn nearly_a_line() -> impl Strategy<Value = Vec<u8>> {
        let field = prop_oneof![
            Just(b"-".to_vec()),
            Just(b"25".to_vec()),
            Just(b"shared:".to_vec()),
            Just(b"rw,=,hidepid".to_vec()),
            Just(b"\\0".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(field, 0..14).prop_map(|fields| fields.join(&b' '))
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            mounts(&bytes).for_each(|mount| drop(mount_point(&mount)));
        }

        #[test]
        fn nothing_like_a_line_makes_it_panic_or_hides_a_mount(lines in prop::collection::vec(nearly_a_line(), 0..6)) {
            let text = [lines.join(&b'\n').as_slice(), b"\n", MOUNTS].concat();
            let last = mounts(&text).last().expect("the last of the mounts that were added");
            prop_assert_eq!(last.mnt_id, 71);
            mounts(&text).for_each(|mount| drop(mount_point(&mount)));
        }
    }
}
