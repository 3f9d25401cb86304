//! Close the lid and come back: an interpreter's variables outlive the program that made them.
//!
//! The first program starts a Python interpreter in a named machine, has it compute something, suspends the machine and
//! ends. A second program, which knows nothing but the name, goes on with the interpreter's variables.
//!
//! Usage: `cargo run -p forkyard --example 03_pause_and_return`, with a server running (`make serve`).

use std::time::{Duration, Instant};

use forkyard::{Client, Command, CreateSandbox, Sandbox};

/// Reads lines of code from a pipe and runs them, all in one set of variables.
const INTERPRETER: &str = r#"
import contextlib, io, os

os.mkfifo("/workspace/code")
os.mkfifo("/workspace/answer")
variables = {}
while True:
    with open("/workspace/code") as code:
        source = code.read()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(source, variables)
    with open("/workspace/answer", "w") as answer:
        answer.write(output.getvalue())
"#;

const ASK: &str = r#"until [ -p answer ]; do sleep 0.1; done; printf "%s" "$1" >code; cat answer"#;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Prints what happens, and when.
struct Clock(Instant);

impl Clock {
    fn say(&self, text: impl AsRef<str>) {
        println!("{:6.2} s  {}", self.0.elapsed().as_secs_f64(), text.as_ref());
    }
}

/// Has the interpreter in the machine run some code; answers what it printed.
async fn execute(sandbox: &Sandbox, code: &str) -> Outcome<String> {
    let ask = Command::new("sh").args(["-c", ASK, "sh", code]).timeout(Duration::from_mins(1));
    let result = sandbox.run(ask).await?;
    if result.exit_code != 0 {
        return Err(format!("'{code}' failed: {}", String::from_utf8_lossy(&result.stderr)).into());
    }
    Ok(String::from_utf8(result.stdout)?.trim().to_owned())
}

/// What the first program does.
async fn begin(clock: &Clock, client: &Client, name: &str) -> Outcome<()> {
    let sandbox =
        client.create(CreateSandbox { name: Some(name.to_owned()), ..CreateSandbox::default() }).await?;
    sandbox.files().write("/workspace/interpreter.py", INTERPRETER, None).await?;
    sandbox.start(Command::new("python").args(["interpreter.py"])).await?;
    let primes = "primes = [n for n in range(2, 1000) if all(n % d for d in range(2, int(n**0.5) + 1))]";
    execute(&sandbox, primes).await?;
    let count = execute(&sandbox, "print(len(primes))").await?;
    clock.say(format!("first program: {count} primes are in a variable, in {}", sandbox.id()));
    let info = sandbox.suspend().await?;
    clock.say(format!("first program: the machine is {:?}, and I am done", info.status));
    Ok(())
}

/// What the second program does, in a process of its own.
async fn go_on(clock: &Clock, client: &Client, name: &str) -> Outcome<()> {
    let sandbox = client.connect(name).await?;
    clock.say(format!("second program: found '{name}', which is {:?}", sandbox.info().status));
    let info = sandbox.resume().await?;
    let last = execute(&sandbox, "print(primes[-1])").await;
    sandbox.terminate().await?;
    clock.say(format!("second program: it is {:?}; its last prime is {}", info.status, last?));
    clock.say("the machine is gone");
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let clock = Clock(Instant::now());
    let client = Client::builder().build()?;
    if let Some(name) = std::env::args().nth(1) {
        return go_on(&clock, &client, &name).await;
    }
    let name = format!("thinker-{}", std::process::id());
    begin(&clock, &client, &name).await?;
    let second = std::process::Command::new(std::env::current_exe()?).arg(&name).status()?;
    if second.success() { Ok(()) } else { Err(format!("the second program ended with {second}").into()) }
}
