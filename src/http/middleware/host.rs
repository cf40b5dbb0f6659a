use std::net::{IpAddr, SocketAddr};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{Error, HttpRequest, HttpResponse};

use crate::http::error::ErrorBody;
use crate::settings::HostName;

/// The names under which programs on this machine reach the server.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The hosts that a request may name.
///
/// Why requests are checked: the owner of `http://attacker.example` can make that name resolve to this machine. Then
/// the browser takes this server for the origin of the attacker's page. But the `Host` header of the page's requests is
/// still `attacker.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Any host. Other machines reach this server under names that are not listed.
    Any,
    /// Only these hosts, in lower case and without a port.
    Listed(Vec<String>),
}

impl Hosts {
    /// Returns the allowed hosts of a server that listens on `address`. `names` has the hosts from the settings.
    pub(crate) fn of(address: SocketAddr, names: &[HostName]) -> Self {
        let ip = address.ip();
        if names.is_empty() && !ip.to_canonical().is_loopback() {
            return Self::Any;
        }
        // The unspecified address means every network interface. It is no name of the server.
        let own = (!ip.is_unspecified()).then(|| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        let added = names.iter().map(|name| name.as_str().to_owned());
        Self::Listed(LOCAL.map(str::to_owned).into_iter().chain(own).chain(added).collect())
    }

    fn admits(&self, authority: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(hosts) => std::str::from_utf8(authority)
                .ok()
                .and_then(without_port)
                .is_some_and(|named| hosts.iter().any(|host| host.eq_ignore_ascii_case(named))),
        }
    }

    /// Returns whether the request names only hosts of this list.
    ///
    /// The target of a request may be an absolute URL, whose host outranks the `Host` header. A request of HTTP/1.0 may
    /// have no host, as the health checks of load balancers do; browsers always send one. The framework refuses an
    /// HTTP/1.1 request that has no `Host` header or two of them.
    fn admit(&self, request: &HttpRequest) -> bool {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let headers = request.headers().get_all(header::HOST).map(HeaderValue::as_bytes);
        target.into_iter().chain(headers).all(|authority| self.admits(authority))
    }
}

/// Returns the host of an authority such as `localhost:24210`; `None` if the port is invalid.
fn without_port(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        // A colon within brackets belongs to an IPv6 address.
        Some(address) => address.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    let is_port =
        |port: &str| port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    match rest.strip_prefix(':') {
        Some(port) => is_port(port).then_some(host),
        None => rest.is_empty().then_some(host),
    }
}

/// Middleware around every request. It refuses a request that names another host.
pub(crate) async fn check_host<B: MessageBody + 'static>(
    hosts: &Hosts,
    request: ServiceRequest,
    next: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, Error>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !hosts.admit(request.request()) {
        let error = "this server is not the host that the request names: ask for localhost, 127.0.0.1 or [::1], or add \
                     the name to the setting http.host_names";
        let refusal = HttpResponse::build(StatusCode::MISDIRECTED_REQUEST).json(ErrorBody::new(error));
        return Ok(request.into_response(refusal));
    }
    Ok(next(request).await?.map_into_boxed_body())
}

#[cfg(test)]
mod tests {
    use actix_web::http::Version;
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::stand_in::{StandIn, ask_of, routes};

    fn hosts(address: &str, names: &[&str]) -> Hosts {
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        Hosts::of(address.parse().unwrap(), &names)
    }

    fn local() -> Hosts {
        hosts("127.0.0.1:24210", &[])
    }

    const OF_THIS_MACHINE: [&str; 10] = [
        "localhost",
        "LocalHost",
        "localhost:",
        "localhost:1",
        "localhost:24210",
        "localhost:65535",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:24210",
    ];

    const FOREIGN: [&str; 31] = [
        "",
        ":24210",
        "attacker.example",
        "attacker.example:24210",
        "localhost.attacker.example",
        "localhost.",
        "localhostx",
        "xlocalhost",
        "127.0.0.1.attacker.example",
        "127.0.0.10",
        "127.0.0.2",
        "127.1",
        "0.0.0.0",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]x:1",
        "[::1].attacker.example",
        "[::2]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "localhost:x",
        "localhost:+1",
        "localhost:65536",
        "localhost:80:80",
        "localhost@attacker.example",
        "localhost:80@attacker.example",
        "attacker.example@localhost",
        "localhost/",
        "localhost, attacker.example",
        "localhost attacker.example",
    ];

    async fn status(hosts: &Hosts, request: TestRequest) -> u16 {
        let api = StandIn { check: Some(Ok(())), ..StandIn::default() }.serving();
        let answer = ask_of(&api, hosts, request).await;
        if answer.status == 421 {
            assert!(answer.failure(421).contains("http.host_names"));
        }
        answer.status
    }

    #[actix_web::test]
    async fn every_route_answers_requests_for_this_machine_alone() {
        for (method, path) in routes() {
            let request =
                |host: &str| TestRequest::with_uri(&path).method(method.clone()).insert_header(("host", host));
            for host in OF_THIS_MACHINE {
                assert_ne!(status(&local(), request(host)).await, 421, "{method} {path} for {host:?}");
            }
            for host in FOREIGN {
                assert_eq!(status(&local(), request(host)).await, 421, "{method} {path} for {host:?}");
            }
        }
    }

    #[actix_web::test]
    async fn a_target_that_names_a_host_is_held_to_the_same_rule_as_the_header() {
        for (target, host, expected) in [
            ("http://localhost:24210/health", "localhost:24210", 200),
            ("http://LOCALHOST/health", "[::1]", 200),
            ("http://attacker.example/health", "localhost", 421),
            ("http://localhost/health", "attacker.example", 421),
            ("http://localhost@attacker.example/health", "localhost", 421),
            ("http://attacker.example@localhost/health", "localhost", 421),
            ("https://attacker.example/health", "localhost", 421),
        ] {
            let request = TestRequest::with_uri(target).insert_header(("host", host));
            assert_eq!(status(&local(), request).await, expected, "{target} for {host}");
        }
    }

    #[actix_web::test]
    async fn a_request_of_http_1_0_may_name_no_host_but_no_other() {
        let request = || TestRequest::with_uri("/health").version(Version::HTTP_10);
        assert_eq!(status(&local(), request()).await, 200);
        assert_eq!(status(&local(), request().insert_header(("host", "attacker.example"))).await, 421);
        assert_eq!(status(&local(), request().uri("http://attacker.example/health")).await, 421);
    }

    #[test]
    fn names_of_the_settings_and_the_address_listened_on_are_added() {
        let named = hosts("127.0.0.1:1", &["Metrics.example", "[fd00::5]"]);
        for host in ["metrics.example", "METRICS.EXAMPLE:443", "[FD00::5]:1", "localhost"] {
            assert!(named.admits(host.as_bytes()), "{host}");
        }
        for host in ["other.example", "a.metrics.example", "metrics.example.org"] {
            assert!(!named.admits(host.as_bytes()), "{host}");
        }
        assert!(hosts("127.0.0.2:1", &[]).admits(b"127.0.0.2:1"));
        assert!(hosts("[::ffff:127.0.0.1]:1", &[]).admits(b"[::ffff:127.0.0.1]:1"));
    }

    #[test]
    fn an_address_that_others_can_reach_has_any_name_unless_some_are_set() {
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fe80::1]:1"] {
            assert_eq!(hosts(address, &[]), Hosts::Any);
            let named = hosts(address, &["metrics.example"]);
            assert!(named.admits(b"metrics.example") && named.admits(b"localhost"), "{address}");
            assert!(
                !named.admits(b"other.example") && !named.admits(b"0.0.0.0") && !named.admits(b"[::]"),
                "{address}"
            );
        }
        assert!(hosts("10.0.0.1:1", &["metrics.example"]).admits(b"10.0.0.1:1"));
    }
}
