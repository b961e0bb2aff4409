//! The state folder: who may read it, who has it, and whether a store can live there.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dualwright_core::Fault;

use super::sql::failed;

const DATABASE: &str = "store.sqlite";
const LOCK: &str = "lock";

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Keeps other runtimes out, until it is dropped or the process ends in whichever way.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Folder {
    /// The folder, made when it is not there, and nobody else's from now on.
    pub(super) fn take(path: &Path) -> Result<(Self, Lock), Fault> {
        let folder = Self { path: path.to_owned() };
        folder.make_private().map_err(|error| folder.cannot_be_used(&error))?;
        if let Some(kind) = std::fs::read_to_string("/proc/mounts")
            .ok()
            .zip(path.canonicalize().ok())
            .and_then(|(mounts, path)| network_filesystem(&mounts, &path))
        {
            return Err(failed(format!(
                "state folder {} is on a network file system ({kind}), where a commit is not durable; name a folder on \
                 a local disk",
                path.display()
            )));
        }
        let lock = folder.lock()?;
        // Before SQLite makes it, so that it and its companions have these permissions from the beginning.
        private_file(&folder.database()).map_err(|error| folder.cannot_be_used(&error))?;
        Ok((folder, lock))
    }

    /// A folder that has a store.
    pub(super) fn existing(path: &Path) -> Result<Self, Fault> {
        let folder = Self { path: path.to_owned() };
        if folder.database().is_file() {
            return Ok(folder);
        }
        Err(failed(format!("state folder {} has no store yet; start the runtime once", path.display())))
    }

    pub(super) fn is_taken(path: &Path) -> bool {
        let Ok(file) = OpenOptions::new().read(true).open(path.join(LOCK)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    fn cannot_be_used(&self, error: &std::io::Error) -> Fault {
        failed(format!("state folder {} cannot be used: {error}", self.path.display()))
    }

    /// Ours alone if we make it, if it is empty, or if it is ours already; a folder with other things in it is left as
    /// it is, and only our files in it are private.
    fn make_private(&self) -> std::io::Result<()> {
        if !self.path.is_dir() {
            if let Some(parent) = self.path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut builder = DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            return builder.create(&self.path);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let is_ours = self.database().is_file() || std::fs::read_dir(&self.path)?.next().is_none();
            let mode = std::fs::metadata(&self.path)?.permissions().mode();
            if is_ours && mode & 0o077 != 0 {
                std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o700))?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<Lock, Fault> {
        // Somebody who only looks whether the folder is taken holds the lock for microseconds.
        const TRIES: u32 = 5;
        const PAUSE: Duration = Duration::from_millis(20);
        let mut file = private_file(&self.path.join(LOCK)).map_err(|error| self.cannot_be_used(&error))?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < TRIES => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let holder = match holder.trim() {
                        "" => String::new(),
                        process => format!(" (process {process})"),
                    };
                    return Err(failed(format!(
                        "state folder {} is in use by another dualwright{holder}; stop it, or name another folder",
                        self.path.display()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(self.cannot_be_used(&error)),
            }
        }
        // Only for that message; the lock itself is what counts.
        let note = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        note.map_err(|error| self.cannot_be_used(&error))?;
        Ok(Lock { _file: file })
    }
}

/// Opens a file that only its owner may read, making it when it is not there.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(file)
}

/// The kind of the network file system that `path` is on, as `/proc/mounts` tells it: SQLite's write-ahead log needs
/// shared memory and locks that those do not give.
fn network_filesystem(mounts: &str, path: &Path) -> Option<String> {
    const KINDS: &[&str] =
        &["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre"];
    let mounted = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?.replace("\\040", " "), words.next()?))
        })
        .filter(|(place, _)| path.starts_with(place))
        // Of two mounts on the same place the later one is seen.
        .max_by_key(|(place, _)| place.len())?;
    KINDS.contains(&mounted.1).then(|| mounted.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = "/dev/vda1 / ext4 rw 0 0\nhost:/x /srv nfs4 rw 0 0\n/dev/vdb1 /srv/local\\040disk xfs rw 0 0\n\
                      //nas/x /home/me/nas cifs rw 0 0\ntmpfs /home/me/nas tmpfs rw 0 0\n";
        for (path, found) in [
            ("/var/state", None),
            ("/srv/state", Some("nfs4")),
            ("/srvother/state", None),
            ("/srv/local disk/state", None),
            ("/home/me/nas/state", None),
        ] {
            assert_eq!(network_filesystem(mounts, Path::new(path)).as_deref(), found, "{path}");
        }
        assert_eq!(network_filesystem("", Path::new("/x")), None);
    }
}
