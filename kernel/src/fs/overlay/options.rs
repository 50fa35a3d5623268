//! The options of mount(2): which directories are the layers.

use alloc::vec::Vec;

use crate::errno::{Errno, Result};

/// Lower layers at most, as on Linux.
const LAYERS_MAX: usize = 500;

/// What the options string says. Paths are as they were given, with backslashes before some characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub lower: Vec<u8>,
    pub upper: Option<Vec<u8>>,
    pub work: Option<Vec<u8>>,
    default_permissions: bool,
    no_uuid: bool,
    no_follow: bool,
    /// Private attributes are those of users, not of the administrator.
    pub user_attributes: bool,
}

impl Options {
    pub fn parse(data: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        for option in pieces(data, b',').into_iter().filter(|option| !option.is_empty()) {
            options.add(option).inspect_err(|_| {
                log::warn!("overlay: unknown mount option {}", alloc::string::String::from_utf8_lossy(option));
            })?;
        }
        if options.upper.is_none() {
            options.work = None;
        }
        Ok(options)
    }

    /// What would change the format of the layers (redirects, an index, files without data) is not there, so it can only be
    /// switched off.
    fn add(&mut self, option: &[u8]) -> Result<()> {
        match option {
            b"default_permissions" => self.default_permissions = true,
            b"userxattr" => self.user_attributes = true,
            b"uuid=off" => self.no_uuid = true,
            b"uuid=on" => self.no_uuid = false,
            b"redirect_dir=nofollow" => self.no_follow = true,
            b"redirect_dir=off" => self.no_follow = false,
            b"index=off" | b"nfs_export=off" | b"xino=off" | b"metacopy=off" => {}
            _ => {
                let at = option.iter().position(|&byte| byte == b'=').ok_or(Errno::EINVAL)?;
                let (key, value) = option.split_at(at);
                let value = value.get(1..).filter(|value| !value.is_empty()).ok_or(Errno::EINVAL)?;
                match key {
                    b"lowerdir" => self.lower = value.to_vec(),
                    b"upperdir" => self.upper = Some(value.to_vec()),
                    b"workdir" => self.work = Some(value.to_vec()),
                    _ => return Err(Errno::EINVAL),
                }
            }
        }
        Ok(())
    }

    /// The paths of the lower layers, the topmost first.
    pub fn lower_paths(&self) -> Result<Vec<Vec<u8>>> {
        let paths: Vec<Vec<u8>> = pieces(&self.lower, b':').into_iter().map(unescape).collect();
        let too_few = self.upper.is_none() && paths.len() < 2;
        if paths.len() > LAYERS_MAX || too_few || paths.iter().any(Vec::is_empty) {
            return Err(Errno::EINVAL);
        }
        Ok(paths)
    }

    /// For /proc/mounts.
    pub fn show(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let paths =
            [("lowerdir", Some(&self.lower)), ("upperdir", self.upper.as_ref()), ("workdir", self.work.as_ref())];
        for (key, value) in paths {
            let Some(value) = value else { continue };
            out.push(b',');
            out.extend_from_slice(key.as_bytes());
            out.push(b'=');
            push_escaped(&mut out, value);
        }
        for (is_set, text) in [
            (self.default_permissions, &b",default_permissions"[..]),
            (self.no_follow, b",redirect_dir=nofollow"),
            (self.no_uuid, b",uuid=off"),
            (self.user_attributes, b",userxattr"),
        ] {
            if is_set {
                out.extend_from_slice(text);
            }
        }
        out
    }
}

/// Characters that would end the option or the line are shown as numbers.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if b",= \t\n\\".contains(&byte) {
            out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + ((byte >> 3) & 7), b'0' + (byte & 7)]);
        } else {
            out.push(byte);
        }
    }
}

/// The text between separators that have no backslash before them.
fn pieces(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(&byte) = text.get(at) {
        if byte == separator {
            found.push(text.get(start..at).unwrap_or(&[]));
            start = at + 1;
        }
        at += if byte == b'\\' { 2 } else { 1 };
    }
    found.push(text.get(start..).unwrap_or(&[]));
    found
}

/// Takes out each backslash that stands for its successor.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(data: &[u8]) -> Result<Vec<Vec<u8>>> {
        Options::parse(data)?.lower_paths()
    }

    #[test]
    fn layers_come_apart_at_colons() {
        assert_eq!(lower(b"lowerdir=/a:/b:c"), Ok(vec![b"/a".to_vec(), b"/b".to_vec(), b"c".to_vec()]));
        assert_eq!(lower(br"lowerdir=a\:b:c\\:d\,e"), Ok(vec![b"a:b".to_vec(), br"c\".to_vec(), b"d,e".to_vec()]));
        assert_eq!(lower(b"upperdir=u,workdir=w,lowerdir=x"), Ok(vec![b"x".to_vec()]));
        for bad in [&b"lowerdir=a"[..], b"lowerdir=a::b", b"lowerdir=:a:b", b"lowerdir=a:b:", b"lowerdir=", b"lowerdir"]
        {
            assert_eq!(lower(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn as_many_layers_as_linux_takes() {
        let paths = |count| [b"lowerdir=".to_vec(), vec![&b"x"[..]; count].join(&b':')].concat();
        assert_eq!(lower(&paths(LAYERS_MAX)).map(|paths| paths.len()), Ok(LAYERS_MAX));
        assert_eq!(lower(&paths(LAYERS_MAX + 1)), Err(Errno::EINVAL));
    }

    #[test]
    fn the_last_of_two_options_counts() {
        let options = Options::parse(b"lowerdir=a,,lowerdir=b,upperdir=u,workdir=w,upperdir=v").unwrap();
        assert_eq!((&options.lower[..], options.upper.as_deref()), (&b"b"[..], Some(&b"v"[..])));
    }

    #[test]
    fn what_there_is_not_is_refused() {
        for option in
            ["index=on", "metacopy=on", "redirect_dir=on", "xino=on", "volatile", "nonsense", "nonsense=1", "lowerdir"]
        {
            assert_eq!(Options::parse(option.as_bytes()), Err(Errno::EINVAL), "{option}");
        }
    }

    #[test]
    fn options_are_shown_as_they_were_given() {
        let options = Options::parse(br"workdir=w,upperdir=u\,p,lowerdir=a\:b:c,userxattr").unwrap();
        assert_eq!(options.show(), br",lowerdir=a\134:b:c,upperdir=u\134\054p,workdir=w,userxattr");
        let without = Options::parse(b"lowerdir=a:b,workdir=w").unwrap();
        assert_eq!(without.show(), b",lowerdir=a:b");
    }
}
