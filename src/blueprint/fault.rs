//! What goes wrong in a step itself, not in a provider.

use std::time::Duration;

use crate::base::check::Problem;
use crate::base::fault::{Effect, Failure, Fault};
use crate::base::wait::show;

/// A step's own error.
#[derive(Debug, thiserror::Error)]
pub enum StepFault {
    /// Pods that a budget keeps did not go.
    #[error("node {node} is not drained within {}: {}", show(*.limit), why.join("; "))]
    NotDrained {
        /// The node.
        node: String,
        /// How long they were asked.
        limit: Duration,
        /// Each pod with its reason.
        why: Vec<String>,
    },
    /// A declared command ended badly.
    #[error("{guest}: `{command}` by {route} failed: {how}")]
    Command {
        /// The guest.
        guest: String,
        /// The command line.
        command: String,
        /// The way it was sent.
        route: String,
        /// How it ended, with its last line.
        how: String,
    },
}

impl Fault for StepFault {
    fn effect(&self) -> Effect {
        Effect::Partial
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotDrained { node, .. } => format!(
                "make room in the budgets (`kubectl get pdb -A`), then `pvemig resume`; {node} stays cordoned until then"
            ),
            Self::Command { guest, .. } => {
                format!("try it by hand on {guest}; where it is mended there, `pvemig resume` sees it")
            }
        })
    }
}

/// What is in the way, as an apply says it.
pub fn refusal(problem: Problem) -> Failure {
    Failure::plain(problem.text, Some(problem.help))
}
