//! The certificate of an emulated system, made on the spot.
//!
//! Owns the files that a client has to trust and the settings of the TLS handshake. A certificate authority is made for
//! one server certificate and its key is thrown away, so trusting `ca.pem` trusts nothing else. The machine's clock
//! decides how long it is good, because that is what a client compares it with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

/// Some clients refuse certificates that are good for longer (398 days, CA/Browser Forum).
const GOOD_FOR: Duration = Duration::from_secs(397 * 24 * 60 * 60);
/// A kept certificate that ends sooner is made anew.
const LEFT_MIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A client whose clock is a little behind still accepts it.
const STARTED_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

/// A server's certificate with its key, and the authority that a client has to trust.
#[derive(Clone)]
pub struct TlsIdentity {
    ca_pem: String,
    /// The server's own certificate and the authority's.
    chain_pem: String,
    key_pem: String,
    kept: Kept,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// What tells whether a kept certificate still serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    /// DNS names and IP addresses.
    names: BTreeSet<String>,
    /// Seconds since 1970.
    ends_at: u64,
}

impl TlsIdentity {
    /// Makes a certificate for these DNS names and IP addresses, and for `localhost`, `127.0.0.1` and `::1`.
    pub fn generate(names: &[String]) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let (start, end) = (now - STARTED_BEFORE, now + GOOD_FOR);
        let names = all_names(names);
        for name in &names {
            anyhow::ensure!(is_name(name), "{name:?} is neither a DNS name nor an IP address");
        }
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.not_before = start.into();
        authority.not_after = end.into();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "dualwright emulator authority");
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut server = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        server.not_before = start.into();
        server.not_after = end.into();
        server.distinguished_name.push(DnType::CommonName, "dualwright emulator");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let server_key = KeyPair::generate()?;
        let server_pem = server.signed_by(&server_key, &issuer)?.pem();
        Ok(Self {
            chain_pem: format!("{server_pem}{ca_pem}"),
            ca_pem,
            key_pem: server_key.serialize_pem(),
            kept: Kept { names, ends_at: seconds(end) },
        })
    }

    /// The certificate kept in a folder, as long as it has these names and does not end soon; otherwise a new one, kept
    /// there as `ca.pem`, `server.pem`, `server.key` and `certificate.json`.
    pub fn kept_in(folder: &Path, names: &[String]) -> anyhow::Result<Self> {
        if let Some(identity) = Self::read(folder)
            && identity.kept.names == all_names(names)
            && seconds(SystemTime::now() + LEFT_MIN) < identity.kept.ends_at
            && identity.acceptor().is_ok()
        {
            return Ok(identity);
        }
        let identity = Self::generate(names)?;
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let kept = serde_json::to_string_pretty(&identity.kept)?;
        // The description goes last: a folder that was left halfway is not taken for a whole one.
        for (path, text, is_secret) in [
            (ca_path(folder), &identity.ca_pem, false),
            (folder.join(CHAIN), &identity.chain_pem, false),
            (folder.join(KEY), &identity.key_pem, true),
            (folder.join(DESCRIPTION), &kept, false),
        ] {
            write(&path, text, is_secret).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(identity)
    }

    fn read(folder: &Path) -> Option<Self> {
        let text = |path: PathBuf| std::fs::read_to_string(path).ok();
        Some(Self {
            kept: serde_json::from_str(&text(folder.join(DESCRIPTION))?).ok()?,
            ca_pem: text(ca_path(folder))?,
            chain_pem: text(folder.join(CHAIN))?,
            key_pem: text(folder.join(KEY))?,
        })
    }

    /// What a client has to trust, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the certificate cannot be read")?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).context("the key cannot be read")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

const CHAIN: &str = "server.pem";
const KEY: &str = "server.key";
const DESCRIPTION: &str = "certificate.json";

/// Where [`TlsIdentity::kept_in`] keeps what a client has to trust.
#[must_use]
pub fn ca_path(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

fn all_names(names: &[String]) -> BTreeSet<String> {
    let always = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    names.iter().cloned().chain(always).collect()
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        label == "*"
            || (!label.is_empty()
                && label.len() < 64
                && !label.starts_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
    };
    name.parse::<std::net::IpAddr>().is_ok() || (name.len() < 254 && name.split('.').all(is_label))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn write(path: &Path, text: &str, is_secret: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    if is_secret {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = is_secret;
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_it_does_not_serve() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let kept = |of: &[&str]| TlsIdentity::kept_in(folder.path(), &names(of)).expect("kept").ca_pem;
        let first = kept(&[]);
        assert_eq!(kept(&["localhost"]), first, "it is there already");
        assert_eq!(std::fs::read_to_string(ca_path(folder.path())).expect("a file"), first);
        let second = kept(&["crm.example", "10.0.0.1"]);
        assert_ne!(second, first, "it has other names");
        let path = folder.path().join(DESCRIPTION);
        let description = std::fs::read_to_string(&path).expect("a file");
        let soon = Kept { ends_at: seconds(SystemTime::now()), ..serde_json::from_str(&description).expect("reads") };
        std::fs::write(&path, serde_json::to_string(&soon).expect("writes")).expect("written");
        let third = kept(&["crm.example", "10.0.0.1"]);
        assert_ne!(third, second, "it ends soon");
        std::fs::write(folder.path().join(KEY), "no key").expect("written");
        assert_ne!(kept(&["crm.example", "10.0.0.1"]), third, "its key is lost");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.path().join(KEY)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o77, 0, "the key is nobody else's");
        }
        assert!(TlsIdentity::generate(&["not a name!".to_owned()]).is_err());
    }
}
