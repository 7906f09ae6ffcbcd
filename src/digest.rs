//! Digests and the typed ids made from them. An id is 32 bytes of BLAKE3 over a canonical document under a domain of its
//! own, printed as 64 hexadecimal digits and accepted by any unique prefix of eight or more.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::Value;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an id: 64 hexadecimal digits are expected")]
pub struct ParseIdError(String);

impl Digest {
    /// Digest of raw bytes (file contents); no domain.
    pub fn of_bytes(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of canonical bytes under a domain, so that equal documents of two kinds have different ids.
    pub fn of_canonical(domain: &str, canonical: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        hasher.update(canonical);
        Digest(*hasher.finalize().as_bytes())
    }

    pub fn from_hash(hash: blake3::Hash) -> Digest {
        Digest(*hash.as_bytes())
    }

    /// The first `n` (at most 64) hexadecimal digits.
    pub fn short(&self, n: usize) -> String {
        let mut s = self.to_string();
        s.truncate(n);
        s
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 64];
        for (i, byte) in self.0.iter().enumerate() {
            text[2 * i] = HEX[usize::from(byte >> 4)];
            text[2 * i + 1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short(16))
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError(s.chars().take(80).collect());
        if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Digest(bytes))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $domain:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Digest);

        impl $name {
            /// The id of a document, given its canonical bytes.
            pub fn of_canonical(canonical: &[u8]) -> Self {
                Self(Digest::of_canonical($domain, canonical))
            }

            /// The id of a document.
            pub fn of(document: &Value) -> Self {
                let mut bytes = Vec::with_capacity(1024);
                document.write_canonical(&mut bytes);
                Self::of_canonical(&bytes)
            }

            /// The first `n` hexadecimal digits.
            pub fn short(&self, n: usize) -> String {
                self.0.short(n)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// Names a run unit: everything that decides what is measured.
    UnitId,
    "llmatrix unit v1"
);
id!(
    /// Names a deployment: everything that decides what one engine start is.
    DeployId,
    "llmatrix deployment v1"
);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = UnitId::of(&Value::str("x"));
        assert_eq!(id.to_string().parse::<UnitId>().unwrap(), id);
        assert_eq!(id.to_string().len(), 64);
        assert!("zz".parse::<UnitId>().is_err());
        assert!("é".repeat(32).parse::<UnitId>().is_err());
    }

    #[test]
    fn equal_documents_of_two_kinds_have_different_ids() {
        let doc = Value::str("x");
        assert_ne!(UnitId::of(&doc).to_string(), DeployId::of(&doc).to_string());
    }
}
