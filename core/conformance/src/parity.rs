//! The table of calls and languages, as the documentation has it: written from the results of a run, never by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::case::Case;

/// Cells by call, then by language.
pub type Table = BTreeMap<String, BTreeMap<String, String>>;

/// Public methods in no case, with the reason, by language.
pub type Exempt = BTreeMap<String, BTreeMap<String, String>>;

/// What a language reached by a call: its own name for it, and how many cases showed it.
pub fn cell(native: &str, cases: usize) -> String {
    format!("`{native}` · {cases}")
}

/// The page.
pub fn render(table: &Table, languages: &[(&str, &str)], exempt: &Exempt, cases: &[Case]) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(
        page,
        "\n| call |{}",
        languages.iter().fold(String::new(), |row, (_, heading)| row + " " + heading + " |")
    );
    let _ = writeln!(page, "| --- |{}", " --- |".repeat(languages.len()));
    for (call, cells) in table {
        let _ = write!(page, "| `{call}` |");
        for (language, _) in languages {
            let _ = write!(page, " {} |", cells.get(*language).map_or("—", String::as_str));
        }
        page.push('\n');
    }
    if exempt.values().any(|methods| !methods.is_empty()) {
        page.push_str("\n## Public methods in no case\n\n");
    }
    for (language, heading) in languages {
        for (method, reason) in exempt.get(*language).into_iter().flatten() {
            let _ = writeln!(page, "- {heading}: `{method}`: {reason}");
        }
    }
    if cases.iter().any(|case| !case.except.is_empty()) {
        page.push_str("\n## Cases that a language cannot say\n\n");
    }
    for (language, heading) in languages {
        let mut left_out: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        for case in cases {
            if let Some(reason) = case.except.get(*language) {
                left_out.entry(reason).or_default().entry(&case.topic).or_default().push(&case.name);
            }
        }
        for (reason, topics) in left_out {
            let _ = writeln!(page, "- {heading}: {reason}:");
            for (topic, names) in topics {
                let _ = writeln!(page, "  - {topic}: {}", names.join("; "));
            }
        }
    }
    page
}

const HEAD: &str = "# Parity

What each language calls the same thing, and how many cases of `core/conformance/cases` have shown that it works against a real
server. Written by the run itself (`FORKYARD_WRITE_PARITY=1 make test`); a run whose results differ fails.
";

/// What a page that was rendered before says, for the languages that a run has left out.
pub fn parse(page: &str, languages: &[(&str, &str)]) -> (Table, Exempt) {
    let (mut table, mut exempt) = (Table::new(), Exempt::new());
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let call = cells.next().unwrap_or_default().trim_matches('`').to_owned();
        let known = languages.iter().zip(cells).filter(|(_, cell)| *cell != "—");
        table.insert(
            call,
            known.map(|((language, _), cell)| ((*language).to_owned(), cell.to_owned())).collect(),
        );
    }
    for (language, heading) in languages {
        let begin = format!("- {heading}: `");
        let said = page.lines().filter_map(|line| line.strip_prefix(&begin)?.split_once("`: "));
        let said: BTreeMap<_, _> =
            said.map(|(method, reason)| (method.to_owned(), reason.to_owned())).collect();
        exempt.insert((*language).to_owned(), said);
    }
    (table, exempt)
}

/// What a page says that its cases do not, as far as that can be told without running any: all of them passed when it was written.
pub fn stale(page: &str, languages: &[(&str, &str)], cases: &[Case]) -> Vec<String> {
    let (table, exempt) = parse(page, languages);
    let mut stale = Vec::new();
    for (language, heading) in languages {
        let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
        for case in cases.iter().filter(|case| !case.except.contains_key(*language)) {
            let calls: BTreeSet<&str> = case.steps.iter().map(|step| step.call.as_str()).collect();
            for call in calls.into_iter().filter(|call| !call.starts_with("local.")) {
                *shown.entry(call).or_default() += 1;
            }
        }
        let said = |call: &str| table.get(call).and_then(|cells| cells.get(*language));
        for call in table.keys().map(String::as_str).filter(|call| said(call).is_some()) {
            if !shown.contains_key(call) {
                stale.push(format!("{heading}: no case asks for {call} any more"));
            }
        }
        for (call, cases) in shown {
            if !said(call).is_some_and(|cell| cell.ends_with(&format!(" · {cases}"))) {
                stale.push(format!("{heading}: {cases} cases ask for {call}"));
            }
        }
    }
    if stale.is_empty() && render(&table, languages, &exempt, cases) != page {
        stale.push("what is written about the table".to_owned());
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_can_be_read_back() {
        let languages = [("rust", "Rust"), ("go", "Go")];
        let row = BTreeMap::from([("rust".to_owned(), cell("Files::read", 3))]);
        let table = Table::from([("files.read".to_owned(), row)]);
        let reason = BTreeMap::from([("Client::new".to_owned(), "as it is: fine".to_owned())]);
        let exempt = Exempt::from([("rust".to_owned(), reason), ("go".to_owned(), BTreeMap::new())]);
        let page = render(&table, &languages, &exempt, &[]);
        assert!(page.contains("| `files.read` | `Files::read` · 3 | — |"), "{page}");
        assert_eq!(parse(&page, &languages), (table, exempt));
    }

    #[test]
    fn a_page_that_its_cases_have_left_behind_is_stale() {
        let languages = [("rust", "Rust"), ("go", "Go")];
        let text = r#"[{"name": "one", "except": {"go": "not yet"}, "steps": [
            {"call": "local.read", "args": {"path": "x"}, "returns": 1}, {"call": "files.read", "returns": 1}]}]"#;
        let cases = crate::case::parse("topic", text).unwrap();
        let page = |cells: &[&str]| {
            let row = cells.iter().map(|&language| (language.to_owned(), cell("read", 1))).collect();
            render(&Table::from([("files.read".to_owned(), row)]), &languages, &Exempt::new(), &cases)
        };
        assert_eq!(stale(&page(&["rust"]), &languages, &cases), Vec::<String>::new());
        assert_eq!(stale(&page(&[]), &languages, &cases), ["Rust: 1 cases ask for files.read"]);
        let both = stale(&page(&["rust", "go"]), &languages, &cases);
        assert_eq!(both, ["Go: no case asks for files.read any more"]);
        let other = page(&["rust"]).replace("not yet", "never");
        assert_eq!(stale(&other, &languages, &cases), ["what is written about the table"]);
    }
}
