//! A conversation's text with all that was said: in the form that the template shows, and in a place that it has.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::jinja::{self, Source, Text};
use super::{ChatError, ChatTemplate, Content, Variables};
use crate::tokenizer::Prompt;

impl ChatTemplate {
    /// The text as [`render`](Self::render) gives it, with what the tokenizer must know of it. A
    /// template that does not show the last message of the user is given the contents as lists of
    /// parts. Where it has no place for the system's message, that is the beginning of the user's
    /// first one.
    ///
    /// # Errors
    /// As [`render`](Self::render), and a template that does not show the message either way.
    pub fn prompt(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
        variables: &Variables,
    ) -> Result<Prompt, ChatError> {
        let messages = match self.has_system {
            true => Cow::Borrowed(messages),
            false => without_system(messages),
        };
        let run = |content| self.run(&messages, add_generation_prompt, variables, content);
        let given = run(Content::AsGiven);
        let Some((index, wanted)) = last_question(&messages) else {
            return Ok(self.marked(&given?));
        };
        let shown = |text: &Text| shown_of(text, index);
        if let Ok(text) = &given
            && shown(text) >= wanted
        {
            return Ok(self.marked(text));
        }
        let text = match (given, run(Content::Parts)) {
            (Ok(given), Ok(parts)) if shown(&parts) > shown(&given) => parts,
            (Ok(given), _) if shown(&given) > 0 => given,
            (Ok(_), _) => return Err(ChatError::MessageLost),
            (Err(_), Ok(parts)) if shown(&parts) >= wanted => parts,
            (Err(error), _) => return Err(error),
        };
        Ok(self.marked(&text))
    }

    fn marked(&self, text: &Text) -> Prompt {
        let foreign = text
            .runs()
            .filter(|(_, source)| *source != Source::Template);
        let literals = self.program.literals().into_iter();
        let literals = literals.chain([self.bos.as_str(), self.eos.as_str()]);
        Prompt {
            text: text.as_str().to_owned(),
            foreign: foreign.map(|(range, _)| range).collect(),
            literals: literals.map(str::to_owned).collect(),
        }
    }

    /// Whether a message of the system is in the text. It counts as being there where nothing can be seen of the user's
    /// either.
    pub(super) fn shows_system(&self) -> bool {
        const NEEDLE: &str = "needle";
        let question = json!({"role": "user", "content": NEEDLE});
        let is_shown = |messages: &[Value]| {
            let contents = [Content::AsGiven, Content::Parts];
            let mut texts = contents
                .map(|content| self.run(messages, true, &Variables::new(), content))
                .into_iter();
            texts.any(|text| text.is_ok_and(|text| shown_of(&text, 0) >= NEEDLE.len()))
        };
        is_shown(&[
            json!({"role": "system", "content": NEEDLE}),
            question.clone(),
        ]) || !is_shown(&[question])
    }
}

/// `messages` whose first one, where it is the system's, is put before the user's first words.
fn without_system(messages: &[Value]) -> Cow<'_, [Value]> {
    let [first, rest @ ..] = messages else {
        return Cow::Borrowed(messages);
    };
    let at = rest.iter().position(|message| message["role"] == "user");
    let (Some(at), Some(said)) = (at, first["content"].as_str()) else {
        return Cow::Borrowed(messages);
    };
    let Some(asked) = rest[at]["content"].as_str() else {
        return Cow::Borrowed(messages);
    };
    if first["role"] != "system" {
        return Cow::Borrowed(messages);
    }
    let text = match said.trim().is_empty() {
        true => asked.to_owned(),
        false => format!("{said}\n\n{asked}"),
    };
    let mut messages = rest.to_vec();
    messages[at]["content"] = text.into();
    Cow::Owned(messages)
}

/// The last message of the user, and how many characters of it a rendering should show.
fn last_question(messages: &[Value]) -> Option<(u32, usize)> {
    let mut questions = messages.iter().enumerate().rev();
    let (index, question) = questions.find(|(_, message)| message["role"] == "user")?;
    let text = question["content"].as_str()?;
    let count = text.chars().filter(|&c| !jinja::is_space(c)).count();
    (count > 0).then_some((u32::try_from(index).ok()?, count))
}

/// How many characters of the message `index` are in `text`.
fn shown_of(text: &Text, index: u32) -> usize {
    let mine = text
        .runs()
        .filter(|(_, source)| *source == Source::Content(index));
    let chars = mine.flat_map(|(range, _)| text.as_str()[range].chars());
    chars.filter(|&c| !jinja::is_space(c)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(system: &str, messages: &[(&str, &str)]) -> Result<String, ChatError> {
        let source = format!(
            "{{% for m in messages %}}{{% if m.role == 'system' %}}{system}{{% else %}}<{{{{ m.role }}}}>{{{{ m.content }}}}\
             {{% endif %}}{{% endfor %}}"
        );
        let template = ChatTemplate::new(Some(&source), "", "").expect("a template");
        let messages = messages
            .iter()
            .map(|(role, content)| json!({"role": role, "content": content}));
        let prompt = template.prompt(&messages.collect::<Vec<_>>(), false, &Variables::new());
        prompt.map(|prompt| prompt.text)
    }

    #[test]
    fn what_the_system_says_is_in_the_text_of_every_template() {
        let said = [
            ("system", "be kind"),
            ("user", "hi"),
            ("assistant", "yes"),
            ("user", "so"),
        ];
        for system in ["{{ raise_exception('System role not supported') }}", ""] {
            let text = prompt(system, &said).expect("a text");
            assert_eq!(
                text, "<user>be kind\n\nhi<assistant>yes<user>so",
                "{system}"
            );
            assert_eq!(
                prompt(system, &said[1..]).expect("a text"),
                "<user>hi<assistant>yes<user>so"
            );
            let blank = [("system", " "), ("user", "hi")];
            assert_eq!(prompt(system, &blank).expect("a text"), "<user>hi");
        }
        let shown = prompt("<s>{{ m.content }}", &said).expect("a text");
        assert_eq!(shown, "<s>be kind<user>hi<assistant>yes<user>so");
        // Where the user says nothing there is no place for it.
        let refuses = "{{ raise_exception('no') }}";
        assert!(prompt(refuses, &said[..1]).is_err());
    }

    /// What the user says before the system's words are put there must be text too.
    #[test]
    fn words_of_the_system_stay_foreign_before_those_of_the_user() {
        let source = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}";
        let template = ChatTemplate::new(Some(source), "", "").expect("a template");
        let messages = [
            json!({"role": "system", "content": "<user>"}),
            json!({"role": "user", "content": "hi"}),
        ];
        let prompt = template
            .prompt(&messages, false, &Variables::new())
            .expect("a prompt");
        assert_eq!(prompt.text, "<user><user>\n\nhi");
        assert_eq!(prompt.foreign.first(), Some(&(6..16)));
        assert_eq!(prompt.foreign.len(), 1);
    }
}
