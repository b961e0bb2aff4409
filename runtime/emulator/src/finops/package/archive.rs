//! Packages as zip files.
//!
//! Owns packing and unpacking, and the limits that a hostile file runs into: how many files, how much they may unpack
//! to, which names they may have. Nothing is written to a file system, and an archive inside a package is a file like
//! any other. Knows nothing of what is in the files.

use std::fmt;
use std::io::{Cursor, Read, Write};

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// A package has two documents and a file per entity; F&O has some thousand entities.
const FILES_MAX: usize = 10_000;

/// What all files of a package that are read may unpack to. An upload is at most 128 MiB, and text packs to a tenth.
pub(super) const UNPACKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Why a package cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PackageError {
    NotAZip(String),
    TooManyFiles(usize),
    /// The name of a file leads out of the package.
    Unsafe(String),
    Missing(String),
    TooLarge(String),
    /// A file is damaged, encrypted or packed in a way that is not known.
    Damaged(String, String),
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAZip(why) => write!(f, "The data package is not a valid zip file: {why}."),
            Self::TooManyFiles(count) => {
                write!(f, "The data package holds {count} files; at most {FILES_MAX} are read.")
            }
            Self::Unsafe(name) => write!(f, "The data package holds a file with the invalid name '{name}'."),
            Self::Missing(name) => write!(f, "The data package does not contain the file '{name}'."),
            Self::TooLarge(name) => {
                write!(
                    f,
                    "The data package is too large: with '{name}' it unpacks to more than {UNPACKED_BYTES_MAX} bytes."
                )
            }
            Self::Damaged(name, why) => write!(f, "The file '{name}' of the data package cannot be read: {why}."),
        }
    }
}

/// A package that was opened; files are unpacked when they are asked for.
#[derive(Debug)]
pub(super) struct Package<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    names: Vec<String>,
    bytes_left: u64,
}

impl<'a> Package<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Self, PackageError> {
        Self::open_within(bytes, UNPACKED_BYTES_MAX)
    }

    fn open_within(bytes: &'a [u8], bytes_max: u64) -> Result<Self, PackageError> {
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| PackageError::NotAZip(said(&error)))?;
        if archive.len() > FILES_MAX {
            return Err(PackageError::TooManyFiles(archive.len()));
        }
        let mut names = Vec::with_capacity(archive.len());
        for name in archive.file_names() {
            let name = name.map_err(|error| PackageError::NotAZip(said(&error)))?.into_owned();
            if !is_safe(&name) {
                return Err(PackageError::Unsafe(name.escape_debug().to_string()));
            }
            names.push(name);
        }
        Ok(Self { archive, names, bytes_left: bytes_max })
    }

    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The content of a file; names are compared as Windows does, without case.
    pub fn file(&mut self, name: &str) -> Result<Vec<u8>, PackageError> {
        let at = self.names.iter().position(|own| own.eq_ignore_ascii_case(name));
        let at = at.ok_or_else(|| PackageError::Missing(name.to_owned()))?;
        let damaged = |why: String| PackageError::Damaged(name.to_owned(), why);
        let file = self.archive.by_index(at).map_err(|error| damaged(said(&error)))?;
        let mut content = Vec::new();
        // What the file says of its own size is not believed.
        file.take(self.bytes_left.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| damaged(error.to_string()))?;
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.bytes_left = self.bytes_left.checked_sub(length).ok_or_else(|| PackageError::TooLarge(name.to_owned()))?;
        Ok(content)
    }
}

fn said(error: &ZipError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

fn is_safe(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('/')
        && !name.contains(['\\', ':', '\0'])
        && name.trim_end_matches('/').split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Packs files, in their order.
pub(super) fn pack<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Result<Vec<u8>, ZipError> {
    // Level 1: data files are repetitive text, and packing them is most of the time of an export.
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).compression_level(Some(1));
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        archive.start_file(name, options)?;
        archive.write_all(content)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// Puts packages together without unpacking their files.
pub(super) fn join<'f>(packages: impl IntoIterator<Item = &'f [u8]>) -> Result<Vec<u8>, ZipError> {
    let mut joined = ZipWriter::new(Cursor::new(Vec::new()));
    for package in packages {
        let mut archive = ZipArchive::new(Cursor::new(package))?;
        for at in 0..archive.len() {
            joined.raw_copy_file(archive.by_index_raw(at)?)?;
        }
    }
    Ok(joined.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        pack(files.iter().copied()).expect("packs")
    }

    #[test]
    fn files_come_back_and_packages_join() {
        let first = packed(&[("Manifest.xml", b"<a/>"), ("Sets & more.csv", &[0xff; 1000])]);
        let second = packed(&[("other.csv", b"x")]);
        let joined = join([first.as_slice(), second.as_slice()]).expect("joins");
        let mut package = Package::open(&joined).expect("opens");
        assert_eq!(package.file("MANIFEST.XML").as_deref(), Ok(b"<a/>".as_slice()));
        assert_eq!(package.file("Sets & more.csv").map(|file| file.len()), Ok(1000));
        assert_eq!(package.file("other.csv").as_deref(), Ok(b"x".as_slice()));
        assert_eq!(package.file("none.csv"), Err(PackageError::Missing("none.csv".into())));
    }

    #[test]
    fn hostile_archives_are_refused() {
        let bomb = packed(&[("a.csv", &vec![b' '; 5_000_000])]);
        assert!(bomb.len() < 50_000, "it is small as long as nobody looks inside");
        let mut package = Package::open_within(&bomb, 1_000_000).expect("opens");
        assert_eq!(package.file("a.csv"), Err(PackageError::TooLarge("a.csv".into())));
        let mut twice = Package::open_within(&bomb, 5_000_000).expect("opens");
        assert!(twice.file("a.csv").is_ok());
        assert_eq!(twice.file("a.csv"), Err(PackageError::TooLarge("a.csv".into())), "the limit is of all files");

        for name in ["../a.csv", "a/../../b", "/etc/passwd", "c:a.csv", "a\\..\\b", "./a", "a//b"] {
            let refused = Package::open(&packed(&[(name, b"")])).map(|_| ());
            assert!(matches!(refused, Err(PackageError::Unsafe(_))), "{name}: {refused:?}");
        }
        let whole = packed(&[("Manifest.xml", b"<a>some text in it</a>"), ("b.csv", b"1,2,3")]);
        for length in 0..whole.len() - 1 {
            let refused = Package::open(&whole[..length]).map(|_| ());
            assert!(matches!(refused, Err(PackageError::NotAZip(_))), "{length}: {refused:?}");
        }
        // An archive inside is a file like any other.
        let nested = packed(&[("inner.zip", &whole)]);
        assert_eq!(Package::open(&nested).expect("opens").file("inner.zip").as_ref(), Ok(&whole));
        let mut broken = whole.clone();
        broken[45] ^= 0x55;
        let read = Package::open(&broken).and_then(|mut package| package.file("Manifest.xml"));
        assert!(read.is_err(), "a damaged file has the wrong checksum: {read:?}");
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let seed = packed(&[("Manifest.xml", b"<a/>"), ("b.csv", b"1,2,3\r\n")]);
        // Bytes of their own, and a good archive with bytes changed.
        bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(bytes, changes)| {
            let mut changed = seed.clone();
            for (at, byte) in changes {
                let at = usize::from(*at) % changed.len();
                changed[at] = *byte;
            }
            for bytes in [bytes, &changed] {
                if let Ok(mut package) = Package::open_within(bytes, 100_000) {
                    for name in package.names.clone() {
                        let _ = package.file(&name);
                    }
                }
            }
        });
    }
}
