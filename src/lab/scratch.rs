//! A folder for the length of a run: the demo's and the bench's.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A folder that is removed, with all in it, when its owner is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in `parent`, or else where this machine keeps what is temporary.
    pub(crate) fn new(parent: Option<&Path>, what: &str) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("claudemesh-{what}-{}", crate::id::generate()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scratch_folder_goes_with_its_owner() {
        let scratch = Scratch::new(None, "test").expect("a folder");
        let path = scratch.path().to_owned();
        std::fs::write(path.join("x"), b"x").expect("written");
        drop(scratch);
        assert!(!path.exists());
    }
}
