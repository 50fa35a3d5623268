//! Recipes of root file systems: `images/NAME.toml`. They are data; what they mean is here.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// One recipe.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// What the image is for, one line.
    pub about: String,
    /// A recipe that this one adds to.
    pub base: Option<String>,
    /// Size of the file system, as mke2fs takes it: `64M`.
    #[serde(default)]
    pub size: String,
    /// The first program, handed to the kernel as `init=`.
    #[serde(default = "default_init")]
    pub init: String,
    pub hostname: Option<String>,
    /// Debian packages, just these.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Debian packages with all that they depend on.
    #[serde(default)]
    pub packages_with_dependencies: Vec<String>,
    /// A busybox in the image, whose applets get links.
    pub applets: Option<Applets>,
    #[serde(default, rename = "program")]
    pub programs: Vec<Program>,
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
    #[serde(default, rename = "dir")]
    pub dirs: Vec<Dir>,
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
}

fn default_init() -> String {
    "/sbin/init".into()
}

/// Links for the applets of a busybox, where no other file is in the way.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applets {
    pub of: String,
    pub dir: String,
}

/// A program of this workspace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub package: String,
    pub bin: String,
    pub path: String,
}

/// What a script next to the recipes makes of the source of a Debian package; see [`crate::source_build`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The binary package whose source it is.
    pub package: String,
    /// Debian packages for arm64 with the headers and libraries that it is built with.
    #[serde(default)]
    pub needs: Vec<String>,
    pub script: String,
    /// The folder in the image.
    pub path: String,
}

/// A file with this text, or a copy of one next to the recipes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    pub text: Option<String>,
    pub source: Option<String>,
    #[serde(default = "file_mode")]
    pub mode: Mode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dir {
    pub path: String,
    #[serde(default = "dir_mode")]
    pub mode: Mode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub path: String,
    pub target: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    pub id: u32,
    #[serde(default = "default_home")]
    pub home: String,
    #[serde(default = "default_shell")]
    pub shell: String,
}

fn default_home() -> String {
    "/".into()
}

fn default_shell() -> String {
    "/bin/sh".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    pub id: u32,
}

/// Permission bits, written in octal.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Mode, String> {
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .map(Mode)
            .ok_or_else(|| format!("{text:?} is not an octal mode such as \"0755\""))
    }
}

fn file_mode() -> Mode {
    Mode(0o644)
}

fn dir_mode() -> Mode {
    Mode(0o755)
}

impl Recipe {
    /// Reads `images/NAME.toml`.
    pub fn load(folder: &Path, name: &str) -> Result<Recipe> {
        let path = folder.join(format!("{name}.toml"));
        ensure!(path.is_file(), "there is no recipe {name:?} ({})", available(folder));
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let recipe: Recipe = toml::from_str(&text).with_context(|| format!("{} is not a recipe", path.display()))?;
        match &recipe.base {
            Some(base) if base != name => {
                let base = Recipe::load(folder, base)?;
                Ok(recipe.on_top_of(base))
            }
            Some(_) => bail!("the recipe {name} is its own base"),
            None if recipe.size.is_empty() => bail!("the recipe {name} gives no size"),
            None => Ok(recipe),
        }
    }

    /// Lists grow; what is said once, the upper one says.
    fn on_top_of(mut self, mut base: Recipe) -> Recipe {
        if !self.size.is_empty() {
            base.size = self.size;
        }
        base.about = self.about;
        base.init = self.init;
        base.hostname = self.hostname.or(base.hostname);
        base.applets = self.applets.or(base.applets);
        base.packages.append(&mut self.packages);
        base.packages_with_dependencies.append(&mut self.packages_with_dependencies);
        base.programs.append(&mut self.programs);
        base.sources.append(&mut self.sources);
        base.files.append(&mut self.files);
        base.dirs.append(&mut self.dirs);
        base.links.append(&mut self.links);
        base.users.append(&mut self.users);
        base.groups.append(&mut self.groups);
        base
    }

    pub fn passwd(&self) -> String {
        self.users
            .iter()
            .map(|User { name, id, home, shell }| format!("{name}:x:{id}:{id}:{name}:{home}:{shell}\n"))
            .collect()
    }

    pub fn group(&self) -> String {
        let own = self.users.iter().map(|user| (&user.name, user.id));
        own.chain(self.groups.iter().map(|group| (&group.name, group.id)))
            .map(|(name, id)| format!("{name}:x:{id}:\n"))
            .collect()
    }
}

/// The recipes of a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".toml")?.to_string()))
        .collect();
    names.sort();
    names
}

/// A line for each of them.
pub fn list(folder: &Path) -> Result<String> {
    names(folder).iter().map(|name| Ok(format!("{name:12}{}\n", Recipe::load(folder, name)?.about))).collect()
}

fn available(folder: &Path) -> String {
    format!("there are: {}", names(folder).join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_recipes_can_be_read() {
        let folder = crate::paths::recipes();
        let listed = list(&folder).unwrap();
        assert!(listed.lines().any(|line| line.starts_with("busybox ")), "{listed}");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(Mode::try_from("1777".to_string()), Ok(Mode(0o1777)));
        assert!(Mode::try_from("0778".to_string()).is_err());
        assert!(Mode::try_from("77777".to_string()).is_err());
    }
}
