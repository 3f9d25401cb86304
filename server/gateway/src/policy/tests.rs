//! Tables of decisions.

use std::time::Duration;

use super::*;

const PYPI: &str = "203.0.113.1:443";
const SHARED: &str = "203.0.113.2:443";
const OTHER: &str = "203.0.113.9:443";

struct Bench {
    policy: Policy,
    names: GivenNames,
    now: Instant,
}

/// A policy's default, what it allows and what it denies, with `pypi.org` given for one address, and `pypi.org` and
/// `evil.example` for another one.
fn bench(open: bool, allow: &[&str], deny: &[&str]) -> Bench {
    bench_with(open, allow, deny, &Operator::default())
}

fn bench_with(open: bool, allow: &[&str], deny: &[&str], operator: &Operator) -> Bench {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let policy = NetworkPolicy {
        allow_internet_access: open,
        allow_out: texts(allow),
        deny_out: texts(deny),
        ..NetworkPolicy::default()
    };
    let now = Instant::now();
    let mut names = GivenNames::default();
    for (address, name) in [(PYPI, "pypi.org"), (SHARED, "evil.example"), (SHARED, "pypi.org")] {
        names.note(address.parse::<SocketAddr>().unwrap().ip(), name, Duration::ZERO, now);
    }
    Bench { policy: Policy::new(&policy, operator).unwrap(), names, now }
}

/// A verdict in one line.
fn line(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allow { rule } => format!("allow {rule}"),
        Verdict::AllowNamed { rule, .. } => format!("named {rule}"),
        Verdict::Refuse { rule } => format!("refuse {rule}"),
    }
}

impl Bench {
    fn decide(&self, protocol: Protocol, to: &str) -> String {
        line(self.policy.decide(protocol, to.parse().unwrap(), &self.names, self.now))
    }

    fn tcp(&self, to: &str) -> String {
        self.decide(Protocol::Tcp, to)
    }

    fn named(&self, to: &str, said: &Sniffed) -> String {
        line(self.policy.decide_named(to.parse().unwrap(), said, &self.names, self.now))
    }

    fn sni(&self, to: &str, name: &str) -> String {
        self.named(to, &Sniffed::Tls { sni: Some(name.to_owned()) })
    }
}

const NO_SNI: Sniffed = Sniffed::Tls { sni: None };

#[test]
fn the_default_is_what_the_policy_says() {
    assert_eq!(bench(false, &[], &[]).tcp(PYPI), "refuse default");
    assert_eq!(bench(true, &[], &[]).tcp(PYPI), "allow default");
    assert_eq!(bench(true, &[], &[]).decide(Protocol::Udp, PYPI), "allow default");
    assert_eq!(bench(true, &[], &[]).decide(Protocol::Icmp, PYPI), "allow default");
}

#[test]
fn what_is_refused_always_no_policy_allows() {
    let all = bench(true, &["0.0.0.0/0", "10.0.0.0/8", "127.0.0.1", "[::1]:80"], &[]);
    for (to, rule) in [
        ("127.0.0.1:80", "loopback addresses"),
        ("10.1.2.3:80", "private addresses"),
        ("169.254.169.254:80", "cloud metadata addresses"),
        ("[::1]:80", "loopback addresses"),
        ("[::ffff:10.1.2.3]:80", "private addresses"),
        ("[64:ff9b::a01:203]:80", "private addresses"),
    ] {
        assert_eq!(all.tcp(to), format!("refuse {rule}"), "{to}");
        assert_eq!(all.sni(to, "pypi.org"), format!("refuse {rule}"), "{to}");
    }
}

#[test]
fn the_operator_opens_single_ranges() {
    let operator = Operator {
        extra_allow: vec!["10.0.0.5:3128".into(), "10.9.0.0/16".into(), "198.51.100.7:80".into()],
        host_addresses: vec!["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
    };
    let open = bench_with(true, &[], &["10.9.9.0/24"], &operator);
    assert_eq!(open.tcp("10.0.0.5:3128"), "allow operator");
    assert_eq!(open.tcp("10.0.0.5:22"), "refuse private addresses");
    assert_eq!(open.tcp("10.9.1.1:22"), "allow operator");
    assert_eq!(open.tcp("10.9.9.1:22"), "refuse 10.9.9.0/24");
    assert_eq!(open.tcp("198.51.100.7:80"), "allow operator");
    assert_eq!(open.tcp("198.51.100.7:443"), "refuse the host's own addresses");
    assert_eq!(open.tcp("[64:ff9b::198.51.100.7]:443"), "refuse the host's own addresses");
    assert_eq!(open.decide(Protocol::Icmp, "[2001:db8::7]:0"), "refuse the host's own addresses");
    assert_eq!(bench_with(false, &[], &[], &operator).tcp("10.0.0.5:3128"), "refuse default");
    assert_eq!(bench_with(false, &["10.0.0.0/8"], &[], &operator).tcp("10.0.0.5:3128"), "allow 10.0.0.0/8");
    assert!(open.policy.opens("10.0.0.5:3128".parse().unwrap()));
    assert!(!open.policy.opens("10.0.0.5:22".parse().unwrap()));
    assert!(open.policy.gives("10.0.0.5".parse().unwrap()));
    assert!(!open.policy.gives("10.0.0.6".parse().unwrap()));
    for wrong in ["pypi.org", "*.pypi.org", "0.0.0.0/0", "nonsense/"] {
        let operator = Operator { extra_allow: vec![wrong.into()], ..Operator::default() };
        let error = Policy::new(&NetworkPolicy::default(), &operator).unwrap_err().to_string();
        assert!(error.starts_with(&format!("'{wrong}'")), "{error}");
    }
}

#[test]
fn addresses_are_matched_by_cidr() {
    let some = bench(false, &["203.0.113.0/24:443", "2001:db8::/32"], &["203.0.113.1"]);
    assert_eq!(some.tcp(PYPI), "allow 203.0.113.0/24:443", "allow wins over deny");
    assert_eq!(some.tcp("203.0.113.1:80"), "refuse 203.0.113.1");
    assert_eq!(some.tcp("203.0.113.9:80"), "refuse default");
    assert_eq!(some.tcp("[::ffff:203.0.113.1]:443"), "allow 203.0.113.0/24:443");
    assert_eq!(some.tcp("[2001:db8::1]:80"), "allow 2001:db8::/32");
    assert_eq!(some.decide(Protocol::Udp, PYPI), "allow 203.0.113.0/24:443", "a CIDR allows QUIC");
    assert_eq!(some.decide(Protocol::Icmp, "203.0.113.2:443"), "refuse default", "a ping has no port");
    let denied = bench(true, &[], &["203.0.113.0/24"]);
    assert_eq!(denied.tcp("[64:ff9b::203.0.113.1]:443"), "refuse 203.0.113.0/24", "through NAT64 too");
    let nothing = bench(true, &["203.0.113.1"], &["0.0.0.0/0"]);
    assert_eq!(nothing.tcp(PYPI), "allow 203.0.113.1");
    assert_eq!(nothing.tcp("203.0.113.2:80"), "refuse 0.0.0.0/0");
    assert_eq!(nothing.tcp("[2001:db8::1]:80"), "refuse 0.0.0.0/0", "and IPv6");
}

#[test]
fn a_name_allows_what_was_given_for_it_and_says_it() {
    let some = bench(false, &["pypi.org", "*.example:8080"], &[]);
    for to in [PYPI, SHARED] {
        assert_eq!(some.tcp(to), "named pypi.org", "{to}");
        assert_eq!(some.sni(to, "pypi.org"), "allow pypi.org", "{to}");
        assert_eq!(some.sni(to, "evil.example"), "refuse default", "{to}");
        assert_eq!(
            some.named(to, &Sniffed::Http { host: Some("pypi.org".into()) }),
            "allow pypi.org",
            "{to}"
        );
        assert_eq!(some.named(to, &NO_SNI), "refuse default", "{to}");
        assert_eq!(some.named(to, &Sniffed::Http { host: None }), "refuse default", "{to}");
        assert_eq!(some.named(to, &Sniffed::NeedMore), "refuse default", "{to}");
        assert_eq!(some.named(to, &Sniffed::Other), "allow pypi.org", "{to}");
    }
    assert_eq!(some.tcp(OTHER), "refuse default", "an address that was not given");
    assert_eq!(some.sni(OTHER, "pypi.org"), "refuse default", "saying the name is not enough");
    assert_eq!(some.tcp("203.0.113.2:8080"), "named pypi.org");
    assert_eq!(some.sni("203.0.113.2:8080", "evil.example"), "allow *.example:8080");
    assert_eq!(some.decide(Protocol::Udp, PYPI), "refuse QUIC hides its name");
    assert_eq!(some.decide(Protocol::Udp, "203.0.113.1:123"), "allow pypi.org");
    assert_eq!(some.decide(Protocol::Icmp, "203.0.113.1:0"), "allow pypi.org");
    let later = some.policy.decide(Protocol::Tcp, PYPI.parse().unwrap(), &some.names, some.now + MIN_LIFE);
    assert_eq!(line(later), "refuse default");
    let Verdict::AllowNamed { names, .. } =
        some.policy.decide(Protocol::Tcp, SHARED.parse().unwrap(), &some.names, some.now)
    else {
        panic!("a name is wanted");
    };
    assert_eq!(names, ["pypi.org", "evil.example"]);
}

#[test]
fn a_name_that_the_default_allows_anyway_is_not_asked_for() {
    let open = bench(true, &["pypi.org"], &[]);
    assert_eq!(open.tcp(PYPI), "allow pypi.org");
    assert_eq!(open.decide(Protocol::Udp, PYPI), "allow pypi.org");
}

#[test]
fn a_name_denies_what_was_given_for_it_and_who_says_it() {
    let open = bench(true, &[], &["evil.example", "*.bad.example"]);
    assert_eq!(open.tcp(SHARED), "refuse evil.example");
    assert_eq!(open.tcp(PYPI), "named default");
    assert_eq!(open.sni(PYPI, "pypi.org"), "allow default");
    assert_eq!(open.sni(PYPI, "evil.example"), "refuse evil.example");
    assert_eq!(open.sni(OTHER, "a.bad.example"), "refuse *.bad.example");
    assert_eq!(open.sni(OTHER, "bad.example"), "allow default");
    assert_eq!(open.named(OTHER, &NO_SNI), "allow default");
    assert_eq!(open.named(OTHER, &Sniffed::Other), "allow default");
    assert_eq!(open.decide(Protocol::Udp, OTHER), "refuse QUIC hides its name");
    assert_eq!(open.decide(Protocol::Udp, "203.0.113.9:53"), "allow default");
    assert_eq!(open.decide(Protocol::Udp, "203.0.113.2:53"), "refuse evil.example");
    let with_port = bench(true, &[], &["evil.example:80"]);
    assert_eq!(with_port.tcp(SHARED), "allow default");
    assert_eq!(with_port.tcp("203.0.113.2:80"), "refuse evil.example:80");
}

#[test]
fn an_allowed_name_is_carved_out_of_denied_ones() {
    let carved = bench(true, &["pypi.org"], &["*.org", "evil.example"]);
    assert_eq!(carved.tcp(PYPI), "named pypi.org");
    assert_eq!(carved.sni(PYPI, "pypi.org"), "allow pypi.org");
    assert_eq!(carved.sni(PYPI, "other.org"), "refuse *.org");
    assert_eq!(carved.tcp(SHARED), "named pypi.org", "the name that is said decides");
    assert_eq!(carved.sni(SHARED, "pypi.org"), "allow pypi.org");
    assert_eq!(carved.sni(SHARED, "evil.example"), "refuse *.org");
    let by_address = bench(true, &["203.0.113.0/24"], &["evil.example"]);
    assert_eq!(by_address.tcp(SHARED), "allow 203.0.113.0/24", "a CIDR settles it");
}

#[test]
fn only_allowed_names_are_resolved() {
    let resolved = |bench: Bench, name: &str| bench.policy.resolves(name);
    for (open, allow, deny, name, expected) in [
        (true, &[][..], &[][..], "any.example", true),
        (true, &[], &[], "we ird\\.name.example", true),
        (false, &[], &[], "any.example", false),
        (false, &["pypi.org:443"], &[], "PyPI.org.", true),
        (false, &["pypi.org"], &[], "secret.pypi.org", false),
        (false, &["*.pypi.org"], &[], "a.b.pypi.org", true),
        (false, &["*.pypi.org"], &[], "pypi.org", false),
        (false, &["203.0.113.0/24"], &[], "any.example", false),
        (false, &["0.0.0.0/0"], &[], "any.example", true),
        (false, &["0.0.0.0/0"], &["evil.example"], "evil.example", false),
        (true, &[], &["evil.example"], "evil.example", false),
        (true, &[], &["evil.example:80"], "evil.example", true),
        (true, &["a.evil.example"], &["*.evil.example"], "a.evil.example", true),
        (true, &["a.evil.example"], &["*.evil.example"], "b.evil.example", false),
        (true, &["pypi.org"], &["0.0.0.0/0"], "pypi.org", true),
        (true, &["pypi.org"], &["0.0.0.0/0"], "any.example", false),
    ] {
        assert_eq!(resolved(bench(open, allow, deny), name), expected, "{open} {allow:?} {deny:?} {name}");
    }
}
