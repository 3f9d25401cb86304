use std::path::Path;

use serde_json::json;

use crate::stats::{Goal, Summary};

/// One row's samples, taken alternately.
pub struct Measured {
    pub row: &'static str,
    pub unit: &'static str,
    pub goal: Goal,
    pub ours: Vec<f64>,
    pub bare: Vec<f64>,
    /// What ours may be at most besides, in the row's unit.
    pub most: Option<f64>,
    /// A score out of 100, where the method has one.
    pub score: Option<f64>,
    /// What else was seen, for people.
    pub note: String,
}

impl Measured {
    /// Samples in milliseconds; the row and its goal are for the caller to say.
    pub fn ms(ours: Vec<f64>, bare: Vec<f64>) -> Self {
        let note = String::new();
        Self { row: "", unit: "ms", goal: Goal::None, ours, bare, most: None, score: None, note }
    }

    /// A row whose goal is a difference of so many milliseconds at most: as a ratio to the bare operation's median it is this.
    pub fn difference(row: &'static str, ours: Vec<f64>, bare: Vec<f64>, most: f64) -> Self {
        let median = |samples: &[f64]| Summary::of(samples).map_or(0.0, |summary| summary.p50);
        let base = median(&bare);
        let note = format!("{:+.2} ms (wanted: at most +{most} ms)", median(&ours) - base);
        Self { row, goal: Goal::AtMost((base + most) / base), note, ..Self::ms(ours, bare) }
    }

    /// Ours may be so much at most, whatever the ratio.
    pub fn within(self, most: f64) -> Self {
        Self { most: Some(most), ..self }
    }
}

/// Writes a row's file and line; answers whether its goal holds. One that could not be measured says so and does not hold.
pub fn report(dir: &Path, machine: &serde_json::Value, row: &str, result: Result<Measured, String>) -> bool {
    let (document, line, holds) = match result.and_then(|measured| summarise(measured, machine)) {
        Ok(summarised) => summarised,
        Err(reason) => {
            let document = json!({ "row": row, "error": reason, "holds": false, "machine": machine });
            (document, format!("{row:<20} could not be measured: {reason}"), false)
        }
    };
    println!("{line}");
    let path = dir.join(format!("{row}.json"));
    if let Err(error) = std::fs::write(&path, format!("{document:#}\n")) {
        eprintln!("{}: {error}", path.display());
        return false;
    }
    holds
}

/// The table's head.
pub fn print_head() {
    println!(
        "{:<20} {:>6} {:>9} {:>9} {:>9} {:>9} {:>4} {:>7} {:>9}  holds",
        "row", "unit", "p50", "p95", "p99", "bare p50", "n", "ratio", "goal"
    );
}

fn summarise(
    measured: Measured,
    machine: &serde_json::Value,
) -> Result<(serde_json::Value, String, bool), String> {
    let Measured { row, unit, goal, ours, bare, most, score, mut note } = measured;
    let ours = Summary::of(&ours).ok_or("no samples of ours")?;
    let bare = Summary::of(&bare).ok_or("no samples of the bare operation")?;
    let ratio = ours.p50 / bare.p50;
    let holds = goal.holds(ratio) && most.is_none_or(|most| ours.p50 <= most);
    if let Some(most) = most {
        note = format!("{note}{}wanted: at most {most} {unit}", if note.is_empty() { "" } else { ", " });
    }
    let line = format!(
        "{row:<20} {unit:>6} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>4} {ratio:>7.2} {:>9}  {}{}{note}",
        ours.p50,
        ours.p95,
        ours.p99,
        bare.p50,
        ours.n,
        goal.to_string(),
        if holds { "yes" } else { "NO" },
        if note.is_empty() { "" } else { "  " },
    );
    let document = json!({
        "row": row, "unit": unit, "ours": ours, "bare": bare, "ratio": ratio, "goal": goal.to_string(), "holds": holds,
        "most": most, "score": score, "note": note, "machine": machine,
    });
    Ok((document, line, holds))
}
