//! What a language lacks: decided without I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::Surface;

/// What the cases that passed went through: native methods by call.
pub type Went = BTreeMap<String, BTreeSet<String>>;

/// What is wrong with a language's surface, given the calls that cases name and what the cases that passed went through.
pub fn gaps(surface: &Surface, named: &BTreeSet<String>, went: &Went) -> Vec<String> {
    let methods: BTreeSet<&String> = surface.methods.iter().collect();
    let gone_through: BTreeSet<&String> = went.values().flatten().collect();
    let mut gaps = Vec::new();
    for method in &methods {
        let is_exempt = surface.exempt.contains_key(*method);
        match (gone_through.contains(method), is_exempt) {
            (false, false) => gaps.push(format!("the public method {method} is in no case that passed")),
            (true, true) => gaps.push(format!("{method} needs no exemption: cases go through it")),
            _ => {}
        }
    }
    for method in gone_through.iter().copied().chain(surface.exempt.keys()) {
        if !methods.contains(method) {
            gaps.push(format!("{method} is claimed, but there is no such public method"));
        }
    }
    for call in &surface.calls {
        if !named.contains(call) {
            gaps.push(format!("its executor can {call}, which no case asks for"));
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface() -> Surface {
        let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Surface { calls: strings(&["a.get"]), methods: strings(&["A.get", "A.put"]), ..Surface::default() }
    }

    fn went(methods: &[&str]) -> Went {
        Went::from([("a.get".to_owned(), methods.iter().map(|&it| it.to_owned()).collect())])
    }

    #[test]
    fn a_method_in_no_case_is_a_gap_unless_it_is_exempt() {
        let named = BTreeSet::from(["a.get".to_owned()]);
        let mut surface = surface();
        assert_eq!(gaps(&surface, &named, &went(&["A.get", "A.put"])), Vec::<String>::new());
        assert!(gaps(&surface, &named, &went(&["A.get"]))[0].contains("A.put is in no case"));
        surface.exempt.insert("A.put".to_owned(), "internal".to_owned());
        assert_eq!(gaps(&surface, &named, &went(&["A.get"])), Vec::<String>::new());
        assert!(gaps(&surface, &named, &went(&["A.get", "A.put"]))[0].contains("needs no exemption"));
    }

    #[test]
    fn claims_and_calls_that_nothing_stands_behind_are_gaps() {
        let found = gaps(&surface(), &BTreeSet::new(), &went(&["A.get", "A.put", "A.gone"]));
        assert!(found[0].contains("A.gone is claimed"), "{found:?}");
        assert!(found[1].contains("can a.get, which no case asks for"), "{found:?}");
    }
}
