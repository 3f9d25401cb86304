//! A machine of one's own: write files, run them, watch a longer command, read a result back.
//!
//! Usage: `cargo run -p forkyard --example 01_first_sandbox [IMAGE]`, with a server running (`make serve`).

use std::time::{Duration, Instant};

use forkyard::{Client, Command, CreateSandbox, OutputEvent, Sandbox};

const WORDS: &str = r#"
import collections, json, sys

counts = collections.Counter(sys.stdin.read().split())
json.dump(counts.most_common(3), open("/workspace/result.json", "w"))
print(sum(counts.values()), "words")
"#;

const COUNTDOWN: &str = r#"
import time

for number in (3, 2, 1):
    print(number, flush=True)
    time.sleep(0.3)
print("done", flush=True)
"#;

/// Prints what happens, and when.
struct Clock(Instant);

impl Clock {
    fn say(&self, text: impl AsRef<str>) {
        println!("{:6.2} s  {}", self.0.elapsed().as_secs_f64(), text.as_ref());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock(Instant::now());
    let image = std::env::args().nth(1).unwrap_or_else(|| "python".to_owned());
    let client = Client::builder().build()?;
    let request = CreateSandbox { image: Some(image.clone()), ..CreateSandbox::default() };

    clock.say(format!("asking for a machine with image '{image}'"));
    let sandbox = client.create(request.clone()).await?;
    let worked = work(&clock, &client, &sandbox, request).await;
    // Whatever happened: dropping the value would leave the machine to its idle time-out.
    sandbox.terminate().await?;
    clock.say("the machine is gone");
    worked
}

async fn work(
    clock: &Clock,
    client: &Client,
    sandbox: &Sandbox,
    request: CreateSandbox,
) -> Result<(), Box<dyn std::error::Error>> {
    clock.say(format!("{} runs", sandbox.id()));
    sandbox.files().write("/workspace/words.py", WORDS, None).await?;
    sandbox.files().write("/workspace/countdown.py", COUNTDOWN, None).await?;
    clock.say("wrote two source files");

    let words = Command::new("python").args(["words.py"]).stdin("to be or not to be that is");
    let result = sandbox.run(words).await?;
    let says = String::from_utf8(result.stdout)?;
    clock.say(format!("words.py says: {} (it ran {:.2} s)", says.trim(), result.duration.as_secs_f64()));

    let countdown = Command::new("python").args(["countdown.py"]).timeout(Duration::from_mins(1));
    let watch = |event: &OutputEvent| {
        let OutputEvent::Stdout(data) = event else { return };
        let text = String::from_utf8_lossy(data);
        // A line's end may come on its own.
        if !text.trim().is_empty() {
            clock.say(format!("  countdown.py: {:?}", text.trim()));
        }
    };
    let result = sandbox.run_with(countdown, watch).await?;
    if result.exit_code != 0 {
        return Err(format!("countdown.py ended with {}", result.exit_code).into());
    }
    let counts = sandbox.files().read("/workspace/result.json").await?;
    clock.say(format!("the result, read back: {}", String::from_utf8_lossy(&counts)));

    let other = client.create(request).await?;
    clock.say(format!("{} runs beside it", other.id()));
    let names = other.files().list("/workspace").await;
    other.terminate().await?;
    if !names?.is_empty() {
        return Err("the second machine sees the first one's files".into());
    }
    clock.say("it sees nothing of the first one's files");
    Ok(())
}
