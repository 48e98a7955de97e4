//! What the sessions of the command line begin with.

use anyhow::Result;

use super::{command::Command, end::End};
use crate::{
    cli::{
        args,
        config::{self, Scope},
    },
    probe::plan::Wish,
};

/// What the arguments ask for; the command, where there is one, is held.
pub struct Setup {
    /// Which registrations, and until when.
    pub scope: Scope,
    /// What the probes are to do.
    pub wish: Wish,
    /// What ends the session.
    pub end: End,
}

impl Setup {
    /// Checks the arguments against this machine, and holds the command. `complete` adds what the subcommand wants.
    ///
    /// # Errors
    /// An argument that cannot be followed, or a command that cannot be run.
    pub fn new(scope: &args::Scope, probes: &args::Probes, complete: impl FnOnce(Wish) -> Wish) -> Result<Self> {
        let mut scope = Scope::new(scope)?;
        let command = scope.command.as_deref().map(Command::hold).transpose()?;
        scope.filters.tracer = command.as_ref().map(Command::ancestor).transpose()?.unwrap_or(0);
        let wish = complete(config::wish(probes, true, &scope.filters));
        let end = End::new(&scope, command)?;
        Ok(Self { scope, wish, end })
    }
}
