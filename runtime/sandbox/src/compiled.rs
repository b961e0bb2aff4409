//! Compiled code, kept on disk.
//!
//! A compiled component is native code: whoever can write one runs code in our process. So the folder belongs to its
//! owner alone, every entry carries an HMAC under a key kept beside it, and what does not verify is ignored and written
//! again. An entry is bound to the plugin's digest, the engine's version and its settings by its name, which the HMAC
//! covers.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Changes when what we do with an entry changes.
const FORMAT: &[u8] = b"dualwright compiled 1\n";
const TAG_BYTES: usize = 32;

#[derive(Debug)]
pub(crate) struct CompiledCode {
    folder: PathBuf,
    key: [u8; 32],
    engine: String,
}

impl CompiledCode {
    /// Opens or makes the folder and its key.
    pub fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        make_private_folder(folder)?;
        let key = read_or_make_key(&folder.join("key"))?;
        let mut hasher = HashInto(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder: folder.to_owned(), key, engine: hex(&hasher.0.finalize()[..16]) })
    }

    /// The component, if a valid entry is there.
    pub fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let name = self.name(digest);
        let entry = fs::read(self.folder.join(&name)).ok()?;
        let Some(code) = self.verified(&name, &entry) else {
            tracing::warn!(entry = %name, "an entry of the compiled code cache is not ours and is ignored");
            return None;
        };
        // SAFETY: the HMAC proves that these bytes were written by a process that holds the key, which takes them from
        // `Component::serialize` alone, under a name that stands for this engine.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(entry = %name, %error, "an entry of the compiled code cache does not load");
                None
            }
        }
    }

    /// Keeps a component. Entries of the same plugin for other engines are removed.
    pub fn store(&self, digest: &str, component: &Component) -> io::Result<()> {
        let code = component.serialize().map_err(io::Error::other)?;
        let name = self.name(digest);
        let mut entry = Vec::with_capacity(FORMAT.len() + TAG_BYTES + code.len());
        entry.extend_from_slice(FORMAT);
        entry.extend_from_slice(&self.tag(&name, &code).finalize().into_bytes());
        entry.extend_from_slice(&code);
        let draft = self.folder.join(format!("{name}.{}", uuid::Uuid::new_v4()));
        write_private(&draft, &entry)?;
        fs::rename(&draft, self.folder.join(&name))?;
        for other in fs::read_dir(&self.folder)?.flatten() {
            let file = other.file_name();
            let file = file.to_string_lossy();
            if file.starts_with(digest) && file.ends_with(".code") && *file != *name {
                let _ = fs::remove_file(other.path());
            }
        }
        Ok(())
    }

    fn name(&self, digest: &str) -> String {
        format!("{digest}-{}.code", self.engine)
    }

    fn verified<'a>(&self, name: &str, entry: &'a [u8]) -> Option<&'a [u8]> {
        let rest = entry.strip_prefix(FORMAT)?;
        let (tag, code) = rest.split_at_checked(TAG_BYTES)?;
        self.tag(name, code).verify_slice(tag).ok()?;
        Some(code)
    }

    fn tag(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut tag = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        tag.update(&(name.len() as u64).to_le_bytes());
        tag.update(name.as_bytes());
        tag.update(code);
        tag
    }
}

/// Feeds what a type hashes into a digest.
struct HashInto(Sha256);

impl Hasher for HashInto {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads the key, or makes one. A key that others could read is replaced, which makes every entry foreign.
fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    // Two processes may start at once: one makes the key, the other reads it on the second turn.
    for _ in 0..2 {
        match fs::read(path) {
            Ok(bytes) if is_private(path)? => {
                if let Ok(key) = <[u8; 32]>::try_from(bytes) {
                    return Ok(key);
                }
                tracing::warn!(path = %path.display(), "the key of the compiled code cache is damaged and is replaced");
                fs::remove_file(path)?;
            }
            Ok(_) => {
                tracing::warn!(path = %path.display(), "others can read the key of the compiled code cache; it is replaced");
                fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Two random UUIDs have 244 random bits.
        let mut seed = Sha256::new();
        seed.update(uuid::Uuid::new_v4().as_bytes());
        seed.update(uuid::Uuid::new_v4().as_bytes());
        let key: [u8; 32] = seed.finalize().into();
        // Linked into place, so that nobody reads half a key and the first of two wins.
        let draft = path.with_extension(uuid::Uuid::new_v4().to_string());
        write_private(&draft, &key)?;
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft)?;
        match linked {
            Ok(()) => return Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the key of the compiled code cache keeps changing"))
}

fn is_private(path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        Ok(fs::metadata(path)?.permissions().mode() & 0o077 == 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAT: &str = "(component (core module $m (func (export \"f\"))) (core instance (instantiate $m)))";

    fn component(engine: &Engine) -> Component {
        Component::from_binary(engine, &wat::parse_str(WAT).unwrap()).unwrap()
    }

    #[test]
    fn only_an_untouched_entry_of_ours_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCode::open(folder.path(), &engine).unwrap();
        let digest = "ab".repeat(32);
        assert!(cache.load(&engine, &digest).is_none(), "nothing is there yet");
        cache.store(&digest, &component(&engine)).unwrap();
        assert!(cache.load(&engine, &digest).is_some(), "written and read back");
        assert!(
            CompiledCode::open(folder.path(), &engine).unwrap().load(&engine, &digest).is_some(),
            "by another process"
        );

        let path = folder.path().join(cache.name(&digest));
        let good = fs::read(&path).unwrap();
        type Tamper = fn(&mut Vec<u8>);
        let cases: &[(&str, Tamper)] = &[
            ("a bit of the code", |entry| *entry.last_mut().unwrap() ^= 1),
            ("a bit of the tag", |entry| entry[FORMAT.len()] ^= 1),
            ("another format", |entry| entry[0] ^= 1),
            ("cut short", |entry| entry.truncate(FORMAT.len() + 3)),
            ("empty", Vec::clear),
            ("a plain compiled file", |entry| drop(entry.drain(..FORMAT.len() + TAG_BYTES))),
        ];
        for (case, tamper) in cases {
            let mut entry = good.clone();
            tamper(&mut entry);
            fs::write(&path, entry).unwrap();
            assert!(cache.load(&engine, &digest).is_none(), "{case}");
        }

        fs::write(&path, &good).unwrap();
        let other = "cd".repeat(32);
        fs::copy(&path, folder.path().join(cache.name(&other))).unwrap();
        assert!(cache.load(&engine, &other).is_none(), "an entry under another plugin's name");

        fs::remove_file(folder.path().join("key")).unwrap();
        let rekeyed = CompiledCode::open(folder.path(), &engine).unwrap();
        assert!(rekeyed.load(&engine, &digest).is_none(), "an entry under another key");
        rekeyed.store(&digest, &component(&engine)).unwrap();
        assert!(rekeyed.load(&engine, &digest).is_some(), "it is rewritten");
    }

    #[cfg(unix)]
    #[test]
    fn folder_key_and_entries_belong_to_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("code");
        let engine = Engine::default();
        let cache = CompiledCode::open(&inside, &engine).unwrap();
        cache.store("ef", &component(&engine)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inside), 0o700);
        assert_eq!(mode(&inside.join("key")), 0o600);
        assert_eq!(mode(&inside.join(cache.name("ef"))), 0o600);

        fs::set_permissions(inside.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
        let reopened = CompiledCode::open(&inside, &engine).unwrap();
        assert_ne!(reopened.key, cache.key, "a key that others could read is replaced");
        assert_eq!(mode(&inside.join("key")), 0o600);
    }
}
