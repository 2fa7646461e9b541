//! What webhooks say about rights, for code that cannot wait.
//!
//! Admission plugins and expressions ask about rights in the middle of synchronous work. Where
//! authorizers of type Webhook decide, that work is done twice: the first time every question
//! whose answer is not known yet is noted and answered by a no, and the result is thrown away;
//! then all of them are asked, and the work is done again with what was said. No thread waits.

use parking_lot::Mutex;

use crate::authorizer::Authorizer;
use crate::identity::{Attributes, Decision, Identity};

/// Questions of one request that are asked; all further ones are answered by a no.
const QUESTIONS_MAX: usize = 64;

/// The answers of one request, and the questions that are open.
#[derive(Debug, Default)]
pub struct Answers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Vec<(Question, Decision)>,
    open: Vec<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    identity: Identity,
    asked: Attributes,
}

impl Answers {
    /// The answer, if it is known; else it is an open question from now on.
    pub(crate) fn get(&self, identity: &Identity, asked: &Attributes) -> Option<Decision> {
        let is_it = |one: &Question| one.identity == *identity && one.asked == *asked;
        let mut state = self.0.lock();
        let mut known = state.known.iter();
        if let Some((_, decision)) = known.find(|(one, _)| is_it(one)) {
            return Some(decision.clone());
        }
        if state.known.len() + state.open.len() >= QUESTIONS_MAX {
            tracing::warn!("one request asks for too many rights");
            return Some(Decision::NoOpinion(String::new()));
        }
        if !state.open.iter().any(is_it) {
            let (identity, asked) = (identity.clone(), asked.clone());
            state.open.push(Question { identity, asked });
        }
        None
    }

    /// Whether what was done since the last [`Answers::find`] is to be done again.
    pub fn are_missing(&self) -> bool {
        !self.0.lock().open.is_empty()
    }

    /// Asks whom it concerns about everything that is open.
    pub async fn find(&self, authorizer: &Authorizer) {
        let open = self.0.lock().open.clone();
        let decisions = open
            .iter()
            .map(|one| authorizer.decide(&one.identity, &one.asked));
        let decisions = futures::future::join_all(decisions).await;
        let mut state = self.0.lock();
        state.open.clear();
        state.known.extend(open.into_iter().zip(decisions));
    }
}
