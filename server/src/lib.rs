//! The Forkyard server: the library behind the one binary `forkyard`.
