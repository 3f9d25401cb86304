//! Forkyard.
