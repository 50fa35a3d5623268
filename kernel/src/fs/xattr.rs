//! Names of extended attributes, xattr(7).

/// What an attribute is for, and so who may do what with it: the name up to its first dot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    User,
    Trusted,
    Security,
    System,
}

impl Space {
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Space::User => b"user.",
            Space::Trusted => b"trusted.",
            Space::Security => b"security.",
            Space::System => b"system.",
        }
    }
}

/// The space of a name, and what follows the dot. None: no file system has such attributes.
pub fn split(name: &[u8]) -> Option<(Space, &[u8])> {
    [Space::User, Space::Trusted, Space::Security, Space::System]
        .into_iter()
        .find_map(|space| Some((space, name.strip_prefix(space.prefix())?)))
}
