//! Signing in: client credentials and certificates, between the connectors and emulators that insist on both.

use std::time::Duration;

use dualwright::config::Config;
use dualwright::connect::{ClientCredentials, Endpoint, System};
use dualwright_core::{Code, SystemKind};
use dualwright_emulator::{Dialect, Emulator, ServeOptions, TlsIdentity, TokenCheck, TokenClient};
use tokio::net::TcpListener;

const TIMEOUT: Duration = Duration::from_secs(10);

/// An emulator behind TLS that asks for a token.
struct Guarded {
    emulator: Emulator,
    kind: SystemKind,
    base: String,
    ca_pem: String,
}

impl Guarded {
    async fn start(kind: SystemKind) -> Self {
        let dialect = match kind {
            SystemKind::Finops => Dialect::Finops,
            SystemKind::Dataverse => Dialect::Dataverse,
        };
        let emulator = Emulator::open(dialect, None).expect("opens");
        let identity = TlsIdentity::generate(&[]).expect("a certificate");
        let ca_pem = identity.ca_pem().to_owned();
        let client = TokenClient { id: "app".to_owned(), secret: "right & proper".to_owned() };
        let options =
            ServeOptions { tls: Some(identity), tokens: Some(TokenCheck::new("contoso.example", vec![client])) };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("https://{}", listener.local_addr().expect("address"));
        let serving = emulator.clone();
        // Ends with the test's runtime.
        tokio::spawn(async move { serving.serve_with(options, listener, std::future::pending()).await });
        Self { emulator, kind, base, ca_pem }
    }

    fn system(&self, secret: Option<&str>, ca_pem: Option<&str>) -> System {
        let credentials = secret.map(|secret| ClientCredentials {
            token_url: format!("{}/contoso.example/oauth2/v2.0/token", self.base).parse().expect("a URL"),
            client_id: "app".to_owned(),
            client_secret: secret.to_owned(),
            scope: format!("{}/.default", self.base),
        });
        let base = self.base.parse().expect("a URL");
        let ca_pem = ca_pem.map(|pem| pem.as_bytes().to_vec());
        System::new(self.kind, Endpoint { base, credentials, ca_pem }).expect("a client")
    }
}

#[tokio::test]
async fn a_connector_signs_in_over_tls() {
    for kind in [SystemKind::Finops, SystemKind::Dataverse] {
        let guarded = Guarded::start(kind).await;
        let ca = Some(guarded.ca_pem.as_str());
        for (secret, ca, wanted) in [
            (Some("right & proper"), ca, None),
            (Some("wrong"), ca, Some(Code::Unauthorized)),
            (None, ca, Some(Code::Unauthorized)),
            (Some("right & proper"), None, Some(Code::Unavailable)),
        ] {
            let outcome = guarded.system(secret, ca).catalogue(TIMEOUT).await;
            let code = outcome.err().map(|fault| fault.code);
            assert_eq!(code, wanted, "{kind:?} {secret:?} {}", ca.is_some());
        }
        // A token that expired by the system's clock is renewed on the way, and once.
        let system = guarded.system(Some("right & proper"), ca);
        system.catalogue(TIMEOUT).await.expect("signed in");
        guarded.emulator.clock().advance(Duration::from_secs(2 * 60 * 60));
        system.catalogue(TIMEOUT).await.expect("signed in again");
        let requests = guarded.emulator.requests();
        let of = |status: u16| requests.iter().take(3).filter(|entry| entry.status == status).count();
        assert_eq!((of(200), of(401)), (2, 1), "refused, a token, and the answer");
    }
}

#[test]
fn a_configuration_names_the_certificates_to_trust() {
    let folder = tempfile::tempdir().expect("a folder");
    let identity = TlsIdentity::generate(&[]).expect("a certificate");
    std::fs::write(folder.path().join("ca.pem"), identity.ca_pem()).expect("written");
    std::fs::write(folder.path().join("not.pem"), "nothing of the kind").expect("written");
    for (file, wanted) in [("ca.pem", None), ("not.pem", Some("ca_file")), ("missing.pem", Some("ca_file"))] {
        let text = format!(
            "tenant = \"default\"\nstate = \"state\"\n[link]\nslug = \"l\"\ncompanies = [\"usmf\"]\n\
             finops = {{ url = \"https://a\", ca_file = \"{file}\" }}\ndataverse = {{ url = \"https://b\" }}\n\
             [[map]]\nslug = \"m\"\nfile = \"m.json\"\nintegration_key = [\"k\"]\n"
        );
        match (Config::parse("dualwright.toml", &text, folder.path(), &|_| None), wanted) {
            (Ok(config), None) => {
                assert_eq!(config.link.finops.ca_pem.as_deref(), Some(identity.ca_pem().as_bytes()));
                assert_eq!(config.link.dataverse.ca_pem, None);
            }
            (Err(problems), Some(part)) => {
                assert!(problems.iter().any(|problem| problem.place.ends_with(part)), "{problems:?}")
            }
            (Ok(_), Some(part)) => panic!("{part} was not refused"),
            (Err(problems), None) => panic!("{problems:?}"),
        }
    }
}
