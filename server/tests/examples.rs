//! The Rust examples against a real server. `cargo test` builds them beside the server.

mod common;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::server::{FORKYARD, Machines, Server, free_port};

/// An address of this host's that is not loopback, as example 04 finds it.
fn own_address() -> String {
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("203.0.113.7:9").unwrap();
    probe.local_addr().unwrap().ip().to_string()
}

fn run(name: &str, server: &Server, data: &Path) -> Output {
    let example = Path::new(FORKYARD).parent().unwrap().join("examples").join(name);
    assert!(
        example.exists(),
        "{} is not built: 'cargo build --examples -p forkyard' does it",
        example.display()
    );
    let mut command = Command::new(example);
    // From the repository.
    command.current_dir("..");
    command.env("FORKYARD_URL", format!("http://127.0.0.1:{}", server.port()));
    command.env("FORKYARD_API_KEY_FILE", data.join("api-key")).env_remove("FORKYARD_API_KEY");
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_does_what_it_shows() {
    let (images, folder) = common::folders();
    let data = PathBuf::from(folder.path());
    let machines = Machines(data.clone());
    let opened = ["--network-allow".to_owned(), format!("{}:8137", own_address())];
    let server = Server::start_with(free_port(), &images, &data, &opened).await;
    for (name, shown) in [
        (
            "01_first_sandbox",
            vec!["words.py says: 8 words", r#"countdown.py: "done""#, r#"["to", 2]"#, "sees nothing"],
        ),
        ("02_swarm", vec!["bandit", "5 of 5 agents are done", "the lead: "]),
        ("03_pause_and_return", vec!["168 primes", "Suspended", "its last prime is 997"]),
        ("04_network", vec!["a page from the one host", "none: nothing left it", "169.254.169.254"]),
    ] {
        let output = run(name, &server, &data);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
        for part in shown {
            assert!(text.contains(part), "{name} does not show '{part}': {text}");
        }
    }
    server.stop().await;
    drop(machines);
}
