//! Skills that a mesh shares: `share_skill`, `get_skill`, `list_skills`, `remove_skill`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ask::{Answer, Ask};

/// `share_skill`: gives the mesh a skill, or another text for one that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareSkill {
    /// The skill's name.
    pub name: String,
    /// What it is for, in a sentence: what lists show.
    pub description: String,
    /// How it is done.
    pub instructions: String,
    /// Words that it is found by, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Whatever else a client wants to know of it, any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Value>,
}

impl Ask for ShareSkill {
    const TYPE: &'static str = "share_skill";
    type Answer = SkillAck;
}

/// Answers `share_skill` and `remove_skill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkillAck {
    /// The skill's name.
    pub name: String,
    /// What became of it.
    pub action: SkillAction,
}

impl Answer for SkillAck {
    const TYPE: &'static str = "skill_ack";
}

/// What became of a skill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkillAction {
    /// The mesh has it.
    Shared,
    /// The mesh has it no more.
    Removed,
    /// There was none to remove.
    NotFound,
}

/// `get_skill`: a skill with its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetSkill {
    /// The skill's name.
    pub name: String,
}

impl Ask for GetSkill {
    const TYPE: &'static str = "get_skill";
    type Answer = SkillData;
}

/// Answers `get_skill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkillData {
    /// The skill, if there is one of that name.
    pub skill: Option<Skill>,
}

impl Answer for SkillData {
    const TYPE: &'static str = "skill_data";
}

/// A skill with its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// How it is done.
    pub instructions: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The name of the member that shared it last.
    pub author: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_session: Option<String>,
    /// Whatever else is known of it.
    pub manifest: Option<Value>,
    /// When it was first shared, in ISO 8601.
    pub created_at: String,
}

/// `list_skills`: all skills by name, without their texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListSkills {
    /// Only those with this in their name, their description or a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListSkills {
    const TYPE: &'static str = "list_skills";
    type Answer = SkillList;
}

/// Answers `list_skills`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkillList {
    /// The skills.
    pub skills: Vec<SkillEntry>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for SkillList {
    const TYPE: &'static str = "skill_list";
}

/// A skill as lists show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkillEntry {
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The name of the member that shared it last.
    pub author: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_session: Option<String>,
    /// When it was first shared, in ISO 8601.
    pub created_at: String,
}

/// `remove_skill`: one's own, or as a moderator anybody's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoveSkill {
    /// The skill's name.
    pub name: String,
}

impl Ask for RemoveSkill {
    const TYPE: &'static str = "remove_skill";
    type Answer = SkillAck;
}
