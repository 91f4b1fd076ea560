//! The path by which hosts find this program.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::places::Places;
use crate::output::Failure;

/// What this program's file is called.
const NAME: &str = "claudemesh-broker";

/// This program's own file.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Where it is: on the path, where that is a link to it, since a link outlives an
    /// upgrade.
    pub(crate) absolute: String,
    /// Whether its bare name finds it.
    is_on_path: bool,
}

impl Program {
    /// Finds this program's file.
    pub(crate) fn find(places: &Places) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program's own file is not known")?;
        Self::at(&own, places)
    }

    fn at(own: &Path, places: &Places) -> anyhow::Result<Self> {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let first: Option<PathBuf> =
            places.path.iter().map(|folder| folder.join(NAME)).find(|file| file.exists());
        let on_path = first.filter(|file| file.is_absolute() && real(file) == real(own));
        let is_on_path = on_path.is_some();
        let file = on_path.unwrap_or_else(|| own.to_owned());
        let absolute = file.to_str().map(str::to_owned).ok_or_else(|| {
            let message = format!("the path of this program, {}, is not UTF-8", file.display());
            Failure::new("program_path", message)
        })?;
        Ok(Self { absolute, is_on_path })
    }

    /// How a file that a project's people share names it: by its bare name where that is
    /// found here, since their folders are others.
    pub(crate) fn shared(&self) -> &str {
        if self.is_on_path { NAME } else { &self.absolute }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_link_on_the_path_is_named_rather_than_what_it_leads_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let (bin, own) = (folder.path().join("bin"), folder.path().join("v1"));
        std::fs::create_dir(&bin).expect("made");
        std::fs::write(&own, "").expect("written");
        let path = bin.to_string_lossy().into_owned();
        let env = move |name: &str| match name {
            "PATH" => Some(path.clone()),
            "HOME" => Some("/home/ada".to_owned()),
            _ => None,
        };
        let places = Places::of(&env, PathBuf::from("/work")).expect("a home");
        let program = Program::at(&own, &places).expect("UTF-8");
        assert_eq!(program.absolute, own.to_string_lossy());
        assert_eq!(program.shared(), own.to_string_lossy(), "others may have none on the path");
        std::os::unix::fs::symlink(&own, bin.join(NAME)).expect("a link");
        let program = Program::at(&own, &places).expect("UTF-8");
        assert_eq!(program.absolute, bin.join(NAME).to_string_lossy());
        assert_eq!(program.shared(), NAME);
    }
}
