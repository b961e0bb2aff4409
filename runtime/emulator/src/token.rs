//! Who may call: access tokens as Microsoft Entra ID gives them out for client credentials.
//!
//! Owns the token endpoints (v1 and v2), what they refuse in the words of Entra, and the check of a bearer token. A token
//! is a JWT with the claims of a real one, but signed by a key that only this process has: nobody else can verify it, and
//! nobody else should. Who a client is inside the system is not known here.
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::escape;
use dualwright_odata::literal::format_date_time;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use uuid::Uuid;

use crate::clock::{Clock, MICROS_PER_SECOND};
use crate::{Dialect, exchange};

/// Who may get a token, and for how long.
#[derive(Debug, Clone)]
pub struct TokenCheck {
    /// The directory: an id or a domain name.
    pub tenant: String,
    pub clients: Vec<TokenClient>,
    pub lifetime_seconds: i64,
}

/// An application that may sign in.
#[derive(Clone)]
pub struct TokenClient {
    pub id: String,
    pub secret: String,
}

impl std::fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenClient").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenClient {
    /// A client with a secret that nobody can guess.
    #[must_use]
    pub fn generate(id: Option<String>) -> Self {
        let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
        Self { id, secret: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()) }
    }
}

/// What Entra gives when nothing else is configured: an hour, less one second.
const LIFETIME_SECONDS: i64 = 3_599;

impl TokenCheck {
    #[must_use]
    pub fn new(tenant: impl Into<String>, clients: Vec<TokenClient>) -> Self {
        Self { tenant: tenant.into(), clients, lifetime_seconds: LIFETIME_SECONDS }
    }
}

/// The applications that stand for all environments of the two systems, as audiences.
const WELL_KNOWN_RESOURCES: [&str; 2] =
    ["00000007-0000-0000-c000-000000000000", "00000015-0000-0000-c000-000000000000"];

/// Gives out tokens and checks them.
pub(crate) struct Tokens {
    check: TokenCheck,
    key: Hmac<Sha256>,
}

/// The claims of a token that are looked at.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    appid: String,
    appidacr: String,
    idtyp: String,
    oid: Uuid,
    sub: Uuid,
    tid: String,
    uti: String,
    ver: String,
}

/// What Entra refuses.
struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    message: String,
}

impl Tokens {
    pub fn new(check: TokenCheck) -> Self {
        let secret = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let key = Hmac::new_from_slice(&secret).expect("a key of any length serves");
        Self { check, key }
    }

    /// Answers what an application asks of its directory; `None` when the path is not one of those. `base` is where the
    /// caller reached us.
    pub fn answer(&self, clock: &Clock, base: &str, request: &Request) -> Option<Response> {
        let path = request.url.split('?').next().unwrap_or_default();
        let (tenant, endpoint) = path.strip_prefix('/')?.split_once('/')?;
        let outcome = match endpoint {
            "oauth2/v2.0/token" => self.give(clock, base, tenant, true, request),
            "oauth2/token" => self.give(clock, base, tenant, false, request),
            ".well-known/openid-configuration" => self.known(tenant).map(|()| discovery(base, tenant, "oauth2")),
            "v2.0/.well-known/openid-configuration" => {
                self.known(tenant).map(|()| discovery(base, tenant, "oauth2/v2.0"))
            }
            "discovery/instance" => Ok(json!({
                "tenant_discovery_endpoint":
                    format!("{base}/{}/v2.0/.well-known/openid-configuration", self.check.tenant),
                "api-version": "1.1",
                "metadata": [],
            })),
            "discovery/v2.0/keys" | "discovery/keys" => Ok(json!({"keys": []})),
            _ => return None,
        };
        Some(match outcome {
            Ok(body) => answer(200, &body),
            Err(refusal) => refusal.answer(clock),
        })
    }

    fn known(&self, tenant: &str) -> Result<(), Refusal> {
        if tenant.eq_ignore_ascii_case(&self.check.tenant) {
            return Ok(());
        }
        let message = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the \
             correct cloud. Check with your subscription administrator, this may happen if there are no active \
             subscriptions for the tenant."
        );
        Err(Refusal { status: 400, error: "invalid_request", code: 90_002, message })
    }

    fn give(
        &self,
        clock: &Clock,
        base: &str,
        tenant: &str,
        is_v2: bool,
        request: &Request,
    ) -> Result<serde_json::Value, Refusal> {
        let refuse = |status, error, code, message: String| Err(Refusal { status, error, code, message });
        if request.method != "POST" {
            let message = format!("The endpoint only accepts POST requests. Received a {} request.", request.method);
            return refuse(400, "invalid_request", 900_561, message);
        }
        self.known(tenant)?;
        let form = read_form(&request.body);
        let field = |name: &str| form.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let needed = |name: &str| {
            field(name).filter(|value| !value.is_empty()).ok_or_else(|| Refusal {
                status: 400,
                error: "invalid_request",
                code: 900_144,
                message: format!("The request body must contain the following parameter: '{name}'."),
            })
        };
        let grant = needed("grant_type")?;
        if grant != "client_credentials" {
            let message = format!("The app requested an unsupported grant type '{grant}'.");
            return refuse(400, "unsupported_grant_type", 70_003, message);
        }
        let basic = header(&request.headers, "authorization").and_then(read_basic);
        let (id, secret) = match &basic {
            Some((id, secret)) => (id.as_str(), Some(secret.as_str())),
            None => (needed("client_id")?, field("client_secret")),
        };
        let Some(client) = self.check.clients.iter().find(|client| client.id.eq_ignore_ascii_case(id)) else {
            let message = format!(
                "Application with identifier '{id}' was not found in the directory '{tenant}'. This can happen if the \
                 application has not been installed by the administrator of the tenant or consented to by any user in \
                 the tenant. You may have sent your authentication request to the wrong tenant."
            );
            return refuse(400, "unauthorized_client", 700_016, message);
        };
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else {
            let message = "The request body must contain the following parameter: 'client_assertion' or \
                           'client_secret'.";
            return refuse(401, "invalid_client", 7_000_218, message.to_owned());
        };
        if secret != client.secret {
            let message = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                 value, not the client secret ID, for a secret added to app '{}'.",
                client.id
            );
            return refuse(401, "invalid_client", 7_000_215, message);
        }
        let resource = if is_v2 {
            let scope = needed("scope")?;
            match scope.strip_suffix("/.default") {
                Some(resource) if !resource.contains(' ') => resource,
                _ => {
                    let message = format!(
                        "The provided value for scope {scope} is not valid. Client credential flows must have a scope \
                         value with /.default suffixed to the resource identifier (application ID URI)."
                    );
                    return refuse(400, "invalid_scope", 1_002_012, message);
                }
            }
        } else {
            needed("resource")?
        };
        if !is_ours(resource, authority_of(base)) {
            let message = format!(
                "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if \
                 the application has not been installed by the administrator of the tenant or consented to by any user \
                 in the tenant. You might have sent your authentication request to the wrong tenant."
            );
            return refuse(400, "invalid_resource", 500_011, message);
        }
        let now = clock.now_seconds();
        let lifetime = self.check.lifetime_seconds;
        let token = self.sign(&self.claims(base, resource, client, now));
        Ok(if is_v2 {
            json!({"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token})
        } else {
            // The older endpoint gives its numbers as text.
            json!({
                "token_type": "Bearer", "expires_in": lifetime.to_string(), "ext_expires_in": lifetime.to_string(),
                "expires_on": (now + lifetime).to_string(), "not_before": now.to_string(), "resource": resource,
                "access_token": token,
            })
        })
    }

    fn claims(&self, base: &str, resource: &str, client: &TokenClient, now: i64) -> Claims {
        // The service principal's id, always the same for the same client.
        let principal = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:dualwright:{}", client.id).as_bytes());
        Claims {
            aud: resource.trim_end_matches('/').to_owned(),
            iss: format!("{base}/{}/", self.check.tenant),
            iat: now,
            nbf: now,
            exp: now + self.check.lifetime_seconds,
            appid: client.id.clone(),
            appidacr: "1".to_owned(),
            idtyp: "app".to_owned(),
            oid: principal,
            sub: principal,
            tid: self.check.tenant.clone(),
            uti: Uuid::new_v4().simple().to_string(),
            ver: "1.0".to_owned(),
        }
    }

    fn sign(&self, claims: &Claims) -> String {
        let header = encode(json!({"typ": "JWT", "alg": "HS256", "kid": "dualwright-emulator"}).to_string().as_bytes());
        let claims = encode(&serde_json::to_vec(claims).unwrap_or_default());
        let signed = format!("{header}.{claims}");
        let mut mac = self.key.clone();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", encode(&mac.finalize().into_bytes()))
    }

    /// The client behind a request's token; `None` when it has none that is good here and now.
    pub fn caller(&self, clock: &Clock, host: &str, headers: &[(String, String)]) -> Option<Arc<str>> {
        let (scheme, token) = header(headers, "authorization")?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (signed, signature) = token.trim().rsplit_once('.')?;
        let mut mac = self.key.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&decode(signature)?).ok()?;
        let claims: Claims = serde_json::from_slice(&decode(signed.split_once('.')?.1)?).ok()?;
        let now = clock.now_seconds();
        // Five minutes either way, as the libraries that check real tokens allow by default.
        const LEEWAY_SECONDS: i64 = 300;
        let is_good = claims.nbf - LEEWAY_SECONDS <= now && now < claims.exp + LEEWAY_SECONDS;
        (is_good && is_ours(&claims.aud, host)).then(|| claims.appid.into())
    }

    /// The answer to a request without a good token.
    pub fn unauthorized(&self, dialect: Dialect, base: &str) -> Response {
        let challenge =
            format!("Bearer authorization_uri={base}/{}/oauth2/authorize, resource_id={base}/", self.check.tenant);
        let body = match dialect {
            Dialect::Dataverse => "HTTP Error 401 - Unauthorized: Access is denied",
            Dialect::Finops => "",
        };
        Response {
            status: 401,
            headers: vec![
                ("WWW-Authenticate".into(), challenge),
                ("Content-Type".into(), "text/html; charset=utf-8".into()),
            ],
            body: body.into(),
            content_id: None,
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("check", &self.check).finish_non_exhaustive()
    }
}

impl Refusal {
    fn answer(&self, clock: &Clock) -> Response {
        let time = format_date_time(clock.now_seconds() * MICROS_PER_SECOND).replace('T', " ");
        let (trace, correlation) = (Uuid::new_v4(), Uuid::new_v4());
        let description = format!(
            "AADSTS{}: {}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}",
            self.code, self.message
        );
        let body = json!({
            "error": self.error, "error_description": description, "error_codes": [self.code], "timestamp": time,
            "trace_id": trace, "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
        });
        answer(self.status, &body)
    }
}

fn answer(status: u16, body: &serde_json::Value) -> Response {
    let mut response = exchange::json(status, body.to_string().into_bytes());
    response.headers = vec![
        ("Content-Type".into(), "application/json; charset=utf-8".into()),
        ("Cache-Control".into(), "no-store, no-cache".into()),
        ("Pragma".into(), "no-cache".into()),
    ];
    response
}

fn discovery(base: &str, tenant: &str, endpoints: &str) -> serde_json::Value {
    let issuer = if endpoints == "oauth2" { format!("{base}/{tenant}/") } else { format!("{base}/{tenant}/v2.0") };
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{base}/{tenant}/{endpoints}/token"),
        "authorization_endpoint": format!("{base}/{tenant}/{endpoints}/authorize"),
        "jwks_uri": format!("{base}/{tenant}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

/// `127.0.0.1:4711` of `https://127.0.0.1:4711/`.
fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Whether an audience is the service at `host`. The names of this machine are one.
fn is_ours(audience: &str, host: &str) -> bool {
    let split = |authority: &str| {
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => (name, port),
            _ => (authority, ""),
        };
        let name = name.to_ascii_lowercase();
        let is_loopback = name == "localhost" || name == "[::1]" || name.starts_with("127.");
        (if is_loopback { "localhost".to_owned() } else { name }, port.to_owned())
    };
    WELL_KNOWN_RESOURCES.contains(&audience.trim_end_matches('/'))
        || (audience.contains("://") && split(authority_of(audience)) == split(host))
}

fn read_form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let decoded = |part: &str| escape::decode_query(part).map_or_else(|| part.to_owned(), |text| text.into_owned());
    text.trim()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

/// The client of `Basic …`, whose parts are form-encoded (RFC 6749, 2.3.1).
fn read_basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(decode(encoded.trim())?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| escape::decode_query(part).map_or_else(|| part.to_owned(), |text| text.into_owned());
    Some((decoded(id), decoded(secret)))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, without padding (RFC 4648, 5).
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0_u32, |group, byte| (group << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            let index = (group >> (18 - 6 * digit)) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}

/// Both alphabets, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for four in digits.chunks(4) {
        let mut group = 0_u32;
        for digit in four {
            let digit = match digit {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            };
            let index = DIGITS.iter().position(|own| *own == digit)?;
            group = (group << 6) | u32::try_from(index).ok()?;
        }
        if four.len() == 1 {
            return None;
        }
        group <<= 6 * (4 - four.len());
        bytes.extend_from_slice(&group.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_standard_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("-_+/Zg=="), Some(vec![0xfb, 0xff, 0xbf, 0x66]));
        for broken in ["A", "Zm9vA", "Z!", "é"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn audiences_of_a_host() {
        for (audience, host, ours) in [
            ("https://127.0.0.1:5000", "127.0.0.1:5000", true),
            ("https://localhost:5000/", "127.0.0.1:5000", true),
            ("http://LOCALHOST:5000", "[::1]:5000", true),
            ("https://127.0.0.1:5001", "127.0.0.1:5000", false),
            ("https://org.crm.dynamics.com", "127.0.0.1:5000", false),
            ("https://org.example/", "org.example", true),
            ("00000007-0000-0000-c000-000000000000", "x", true),
            ("x", "x", false),
        ] {
            assert_eq!(is_ours(audience, host), ours, "{audience} {host}");
        }
    }
}
