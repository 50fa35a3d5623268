//! `cargo xtask doctor`: what is here, what is missing, and what to type.

use anyhow::Result;

use crate::from_source;
use crate::provision::{self, BARE, MUSL, TOOLS};
use crate::{out, outln};

/// Reports; status 1 if something is missing that every guest needs.
pub fn run() -> Result<u8> {
    let mut report = Report::default();
    for tool in TOOLS {
        let place = match tool.find() {
            Some(path) => path.display().to_string(),
            None => {
                report.packages.push(tool.package);
                format!("Debian package {}", tool.package)
            }
        };
        report.line(tool.find().is_some(), tool.name, &place, tool.only_for);
    }
    report.rust()?;
    report.advise();
    Ok(u8::from(report.incomplete))
}

#[derive(Default)]
struct Report {
    packages: Vec<&'static str>,
    rustup: Vec<String>,
    incomplete: bool,
}

impl Report {
    fn line(&mut self, here: bool, name: &str, detail: &str, only_for: Option<&str>) {
        let only = only_for.map_or_else(String::new, |what| format!(", only for `{what}`"));
        outln!("{}  {name} ({detail}{only})", if here { "ok     " } else { "missing" });
        self.incomplete |= !here && only_for.is_none();
    }

    fn rust(&mut self) -> Result<()> {
        let rustup = provision::rustup_is_here();
        let from_source = if rustup { Vec::new() } else { from_source::missing_packages()? };
        for triple in [BARE, MUSL] {
            let name = format!("Rust target {triple}");
            if provision::has_target(triple)? {
                self.line(true, &name, "with its standard library", None);
            } else if rustup {
                self.line(false, &name, "from rustup", None);
                self.rustup.push(format!("rustup target add {triple}"));
            } else {
                self.line(from_source.is_empty(), &name, "no rustup, so built from source", None);
                self.packages.extend(&from_source);
            }
        }
        for (subcommand, component) in provision::COMPONENTS {
            let here = provision::has_component(subcommand);
            self.line(here, component, "component of Rust", Some("cargo xtask check"));
            if !here && rustup {
                self.rustup.push(format!("rustup component add {component}"));
            } else if !here {
                self.packages.push(from_source::component_package(component));
            }
        }
        Ok(())
    }

    fn advise(&mut self) {
        self.packages.sort_unstable();
        self.packages.dedup();
        if self.packages.is_empty() && self.rustup.is_empty() {
            return;
        }
        out!("\n");
        if self.packages.is_empty() || provision::may_install() {
            outln!("The first command that needs something of it installs it. To do so now, type:\n");
        } else {
            outln!("To install what is missing, type:\n");
        }
        if !self.packages.is_empty() {
            outln!("    {}", provision::by_hand(&self.packages));
        }
        self.rustup.iter().for_each(|command| outln!("    {command}"));
    }
}
