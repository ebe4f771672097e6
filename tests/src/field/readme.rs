//! The commands that the README prints, by the section that they stand in.

use std::fs;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

/// The blocks of commands (```` ```sh ````) below the heading `### title`, in order. None is a fault.
pub fn blocks(title: &str) -> Result<Vec<String>, Fault> {
    let readme = fs::read_to_string(programs::project().join("README.md"))
        .or_fault("cannot read README.md")?;
    let section = readme
        .split("\n## ")
        .flat_map(|section| section.split("\n### ").skip(1))
        .find(|section| section.lines().next() == Some(title));
    let section = section.ok_or_else(|| Fault::new(format!("README.md has no \"### {title}\"")))?;
    let blocks: Vec<String> = section
        .split("\n```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block.to_owned()))
        .collect();
    if blocks.is_empty() {
        return Err(Fault::new(format!("README.md prints no commands below \"### {title}\"")));
    }
    Ok(blocks)
}
