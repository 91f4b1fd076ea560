//! What the broker hands from one peer to another, and what comes back.
//!
//! What is handed on is nobody's business but theirs: none of these shows it to a log.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RequestId;
use super::mcp::{McpCallForward, McpCallResult};
use super::peer_files::{
    PeerDirRequestForward, PeerDirResponseForward, PeerFileRequestForward, PeerFileResponseForward,
};

/// What a host is asked, as its socket gets it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Forward {
    /// A tool is called.
    McpCallForward(McpCallForward),
    /// A file is asked for.
    PeerFileRequestForward(PeerFileRequestForward),
    /// The names in a folder are asked for.
    PeerDirRequestForward(PeerDirRequestForward),
}

impl Forward {
    /// How the host's answer is known.
    #[must_use]
    pub fn expects(&self) -> Expects {
        match self {
            Self::McpCallForward(_) => Expects::Call,
            Self::PeerFileRequestForward(asked) => Expects::File(Ticket {
                requester: asked.requester_pubkey.clone(),
                path: asked.file_path.clone(),
                req_id: asked.req_id.clone(),
            }),
            Self::PeerDirRequestForward(asked) => Expects::Dir(Ticket {
                requester: asked.requester_pubkey.clone(),
                path: asked.dir_path.clone(),
                req_id: asked.req_id.clone(),
            }),
        }
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::McpCallForward(_) => "a call",
            Self::PeerFileRequestForward(_) => "a file",
            Self::PeerDirRequestForward(_) => "a folder",
        })
    }
}

/// By what an answer is matched to what was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Expects {
    /// By the call's id alone.
    Call,
    /// By what the host was told of a file.
    File(Ticket),
    /// By what the host was told of a folder.
    Dir(Ticket),
}

/// What a host was told and repeats in its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// The requester's key.
    pub requester: String,
    /// The path, which a host may spell in another way.
    pub path: String,
    /// The requester's id, if it gave one.
    pub req_id: Option<RequestId>,
}

impl Ticket {
    /// Whether an answer with that ticket is to this.
    #[must_use]
    pub fn fits(&self, answer: &Self) -> bool {
        self.requester == answer.requester
            && self.req_id == answer.req_id
            && (self.req_id.is_some() || self.path == answer.path)
    }
}

/// What comes back to the node of whoever asked.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// A host's answer to a call.
    Mcp(McpCallResult),
    /// A host's answer about a file.
    File(PeerFileResponseForward),
    /// A host's answer about a folder.
    Dir(PeerDirResponseForward),
    /// The host's socket has ended.
    Gone,
    /// The host is asked for more than it answers.
    Busy,
    /// What only a newer release says.
    #[serde(other)]
    Unknown,
}

impl fmt::Debug for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Mcp(_) => "of a call",
            Self::File(_) => "of a file",
            Self::Dir(_) => "of a folder",
            Self::Gone => "gone",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_crosses_nodes_is_read_as_it_was_written() {
        let call = McpCallForward {
            call_id: "c".to_owned(),
            server_name: "s".to_owned(),
            tool_name: "t".to_owned(),
            args: json!({ "n": [1, -2, 0.5, null], "deep": { "text": "\u{1}" } }),
            caller_name: "ada".to_owned(),
            caller_session: None,
            deadline_ms: 28_000,
        };
        let file = PeerFileRequestForward {
            requester_pubkey: "k".to_owned(),
            file_path: "/x".to_owned(),
            offset: Some(1 << 40),
            length: None,
            req_id: Some(RequestId::Number(7)),
        };
        for forward in [Forward::McpCallForward(call), Forward::PeerFileRequestForward(file)] {
            let packed = rmp_serde::to_vec_named(&forward).expect("packed");
            assert_eq!(rmp_serde::from_slice::<Forward>(&packed).expect("read"), forward);
        }
        let replies = [
            Reply::Mcp(McpCallResult { result: Some(json!({ "ok": true })), error: None }),
            Reply::Mcp(McpCallResult::failed("no")),
            Reply::File(PeerFileResponseForward {
                file_path: "/x".to_owned(),
                ..Default::default()
            }),
            Reply::Dir(PeerDirResponseForward {
                entries: Some(json!(["a"])),
                ..Default::default()
            }),
            Reply::Gone,
            Reply::Busy,
        ];
        for reply in replies {
            let packed = rmp_serde::to_vec_named(&reply).expect("packed");
            assert_eq!(rmp_serde::from_slice::<Reply>(&packed).expect("read"), reply);
        }
        let newer =
            rmp_serde::to_vec_named(&json!({ "reply": "moody", "why": 1 })).expect("packed");
        assert_eq!(rmp_serde::from_slice::<Reply>(&newer).expect("read"), Reply::Unknown);
    }

    #[test]
    fn nothing_that_is_handed_on_shows_in_a_log() {
        let result = McpCallResult { result: Some(json!("secret")), error: None };
        assert!(!format!("{:?}", Reply::Mcp(result)).contains("secret"));
    }

    #[test]
    fn an_answer_fits_by_its_id_or_else_by_its_path() {
        let ticket = |path: &str, req_id: Option<&str>| Ticket {
            requester: "k".to_owned(),
            path: path.to_owned(),
            req_id: req_id.map(|id| RequestId::Text(id.to_owned())),
        };
        assert!(ticket("a", Some("r")).fits(&ticket("./a", Some("r"))));
        assert!(!ticket("a", Some("r")).fits(&ticket("a", Some("s"))));
        assert!(!ticket("a", Some("r")).fits(&ticket("a", None)));
        assert!(ticket("a", None).fits(&ticket("a", None)));
        assert!(!ticket("a", None).fits(&ticket("b", None)));
        let other = Ticket { requester: "l".to_owned(), ..ticket("a", Some("r")) };
        assert!(!ticket("a", Some("r")).fits(&other));
    }
}
