//! Which fault strikes which request: decided without I/O.

use serde::Deserialize;

/// Something that goes wrong on the way.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The requests that it strikes, such as `POST /sandboxes/*/fork`: the path without `/v1` and without its query.
    pub on: String,
    /// How many of them, 0 for all. Default: 1.
    #[serde(default = "once")]
    pub times: usize,
    /// How many it lets pass before. Default: 0.
    #[serde(default)]
    pub skip: usize,
    /// What happens to them.
    pub effect: Effect,
}

fn once() -> usize {
    1
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// It is answered on the way, and never reaches the server.
    Answer {
        /// The status.
        status: u16,
        /// The header `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// The body. Default: a page of no meaning, as a proxy sends it.
        #[serde(default)]
        body: Option<serde_json::Value>,
    },
    /// Its connection is cut before it reaches the server.
    CutBefore,
    /// The server has done it; its connection is cut before the answer.
    CutAfter,
    /// Its connection is cut so many bytes after the answer's begin.
    CutBody(usize),
    /// It is held up for so many milliseconds on its way to the server.
    DelayMs(u64),
    /// The server has done it; its answer is held up for so many milliseconds.
    HoldMs(u64),
    /// Its answer comes in pieces of so many bytes.
    Trickle {
        /// Bytes of a piece.
        bytes: usize,
        /// Milliseconds between two pieces.
        every_ms: u64,
    },
}

/// The faults of a step, and what they have struck.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    faults: Vec<(Fault, usize)>,
    seen: Vec<String>,
}

impl Plan {
    /// A plan with nothing seen.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self { faults: faults.into_iter().map(|fault| (fault, 0)).collect(), seen: Vec::new() }
    }

    /// What happens to this request, if anything. The first fault that is not used up strikes.
    pub fn strike(&mut self, method: &str, path: &str) -> Option<Effect> {
        self.seen.push(format!("{method} {path}"));
        for (fault, count) in &mut self.faults {
            let is_spent = fault.times > 0 && *count >= fault.skip + fault.times;
            if is_spent || !is_like(&fault.on, method, path) {
                continue;
            }
            *count += 1;
            if *count > fault.skip {
                return Some(fault.effect.clone());
            }
        }
        None
    }

    /// Faults that have not struck as often as they were to: such a step has shown nothing.
    pub fn unspent(&self) -> Option<String> {
        let is_unspent = |(fault, count): &&(Fault, usize)| *count < fault.skip + fault.times.max(1);
        let (fault, count) = self.faults.iter().find(is_unspent)?;
        Some(format!(
            "the fault on '{}' struck {} times instead of {}",
            fault.on,
            count.saturating_sub(fault.skip),
            fault.times
        ))
    }

    /// How many requests of a pattern came.
    pub fn count(&self, pattern: &str) -> usize {
        let is_like = |seen: &&String| {
            seen.split_once(' ').is_some_and(|(method, path)| is_like(pattern, method, path))
        };
        self.seen.iter().filter(is_like).count()
    }
}

/// Whether a request is of a pattern; `*` stands for one part of the path.
pub fn is_like(pattern: &str, method: &str, path: &str) -> bool {
    let Some((wanted, pattern)) = pattern.split_once(' ') else { return false };
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let (mut parts, mut patterns) = (path.split('/'), pattern.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return wanted == method,
            (Some(pattern), Some(part)) if pattern == "*" || pattern == part => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(on: &str, skip: usize, times: usize) -> Fault {
        Fault { on: on.to_owned(), times, skip, effect: Effect::CutBefore }
    }

    #[test]
    fn patterns_are_of_the_whole_path() {
        assert!(is_like("POST /sandboxes/*/fork", "POST", "/v1/sandboxes/sbx_1/fork"));
        assert!(!is_like("POST /sandboxes/*/fork", "GET", "/v1/sandboxes/sbx_1/fork"));
        assert!(!is_like("POST /sandboxes", "POST", "/v1/sandboxes/sbx_1"));
        assert!(!is_like("POST /sandboxes/*", "POST", "/v1/sandboxes"));
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says_and_tells_where_it_did_not() {
        let mut plan = Plan::new(vec![cut("GET /a", 1, 2)]);
        assert_eq!(plan.strike("GET", "/v1/a"), None);
        assert_eq!(plan.strike("GET", "/v1/b"), None);
        assert_eq!(plan.strike("GET", "/v1/a"), Some(Effect::CutBefore));
        assert!(plan.unspent().unwrap().contains("struck 1 times instead of 2"));
        assert_eq!(plan.strike("GET", "/v1/a"), Some(Effect::CutBefore));
        assert_eq!((plan.strike("GET", "/v1/a"), plan.unspent(), plan.count("GET /a")), (None, None, 4));
    }

    #[test]
    fn a_fault_on_all_strikes_at_least_once() {
        let mut plan = Plan::new(vec![cut("GET /a", 0, 0)]);
        assert!(plan.unspent().is_some());
        for _ in 0..5 {
            assert_eq!(plan.strike("GET", "/v1/a"), Some(Effect::CutBefore));
        }
        assert_eq!(plan.unspent(), None);
    }

    #[test]
    fn faults_of_one_pattern_strike_one_after_another() {
        let second = Fault { effect: Effect::CutAfter, ..cut("GET /a", 0, 1) };
        let mut plan = Plan::new(vec![cut("GET /a", 0, 1), second]);
        let struck: Vec<_> = (0..3).map(|_| plan.strike("GET", "/v1/a")).collect();
        assert_eq!(struck, [Some(Effect::CutBefore), Some(Effect::CutAfter), None]);
    }
}
