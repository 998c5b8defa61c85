//! The line editor of the human monitor: history, deletion, completion.

const MAX_LINE: usize = 4096;
const MAX_HISTORY: usize = 64;

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    /// Nothing but what was echoed.
    None,
    /// A line is complete.
    Line(String),
    /// The user asks how the line may go on.
    Complete(String),
}

/// The state of one terminal's line.
#[derive(Default)]
pub struct Editor {
    line: Vec<u8>,
    history: Vec<Vec<u8>>,
    /// Position in the history, counted from its end; 0 is the line being written.
    back: usize,
    /// Bytes of an escape sequence seen so far.
    escape: Vec<u8>,
}

impl Editor {
    /// One byte of input; `echo` shows what changes.
    pub fn key(&mut self, byte: u8, echo: &mut dyn FnMut(&[u8])) -> Edit {
        if !self.escape.is_empty() {
            self.escape.push(byte);
            match self.escape.as_slice() {
                [27, b'[' | b'O'] => return Edit::None,
                [27, _, b'A'] => self.recall(true, echo),
                [27, _, b'B'] => self.recall(false, echo),
                [27, _, c] if c.is_ascii_digit() => return Edit::None,
                _ => {}
            }
            self.escape.clear();
            return Edit::None;
        }
        match byte {
            b'\r' | b'\n' => {
                echo(b"\r\n");
                let line = std::mem::take(&mut self.line);
                self.back = 0;
                if !line.is_empty() && self.history.last() != Some(&line) {
                    self.history.push(line.clone());
                    if self.history.len() > MAX_HISTORY {
                        self.history.remove(0);
                    }
                }
                return Edit::Line(String::from_utf8_lossy(&line).into_owned());
            }
            b'\t' => return Edit::Complete(String::from_utf8_lossy(&self.line).into_owned()),
            8 | 127 if !self.line.is_empty() => {
                self.line.pop();
                echo(b"\x08 \x08");
            }
            // Ctrl-C, Ctrl-U: the line goes.
            3 | 21 => self.replace(Vec::new(), echo),
            27 => self.escape.push(27),
            32..=126 | 128.. if self.line.len() < MAX_LINE => {
                self.line.push(byte);
                echo(&[byte]);
            }
            _ => {}
        }
        Edit::None
    }

    fn recall(&mut self, older: bool, echo: &mut dyn FnMut(&[u8])) {
        let back = if older { (self.back + 1).min(self.history.len()) } else { self.back.saturating_sub(1) };
        self.back = back;
        let line = if back == 0 { Vec::new() } else { self.history[self.history.len() - back].clone() };
        self.replace(line, echo);
    }

    fn replace(&mut self, line: Vec<u8>, echo: &mut dyn FnMut(&[u8])) {
        for _ in 0..self.line.len() {
            echo(b"\x08 \x08");
        }
        echo(&line);
        self.line = line;
    }

    /// Continues the line with what all of `words` have in common behind its last word; a list of them is returned if that is nothing.
    pub fn complete(&mut self, words: &[String], echo: &mut dyn FnMut(&[u8])) -> Vec<String> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        let start = line.rfind([' ', ',', '-', '=']).map_or(0, |at| at + 1);
        let whole = line.rfind(' ').map_or(0, |at| at + 1);
        // Words may themselves have dashes.
        let (last, fits) = [&line[whole..], &line[start..]]
            .into_iter()
            .map(|last| (last, words.iter().filter(|w| w.starts_with(last)).collect::<Vec<_>>()))
            .find(|(_, fits)| !fits.is_empty())
            .unwrap_or(("", Vec::new()));
        let Some(first) = fits.first() else { return Vec::new() };
        let common = fits
            .iter()
            .fold(first.len(), |n, w| first.bytes().zip(w.bytes()).take(n).take_while(|(a, b)| a == b).count());
        let mut more = first.as_bytes()[last.len()..common.max(last.len())].to_vec();
        if fits.len() == 1 && !first.ends_with('=') {
            more.push(b' ');
        }
        if more.is_empty() {
            return fits.into_iter().cloned().collect();
        }
        if self.line.len() + more.len() <= MAX_LINE {
            echo(&more);
            self.line.extend_from_slice(&more);
        }
        Vec::new()
    }

    /// The line so far, to be shown again.
    pub fn line(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(editor: &mut Editor, text: &[u8]) -> (Vec<Edit>, String) {
        let mut shown = Vec::new();
        let mut all: Vec<_> = text.iter().map(|b| editor.key(*b, &mut |e| shown.extend_from_slice(e))).collect();
        all.retain(|e| *e != Edit::None);
        (all, String::from_utf8_lossy(&shown).into_owned())
    }

    #[test]
    fn lines_and_history() {
        let mut e = Editor::default();
        assert_eq!(keys(&mut e, b"ab\x7fc\r").0, [Edit::Line("ac".into())]);
        assert_eq!(keys(&mut e, b"x\x1b[A\r").0, [Edit::Line("ac".into())]);
        assert_eq!(keys(&mut e, b"junk\x15ok\x1b[5~\r").0[0], Edit::Line("ok".into()));
        assert_eq!(keys(&mut e, b"st\t").0, [Edit::Complete("st".into())]);
    }

    #[test]
    fn completion() {
        let words: Vec<String> = ["stop", "system_reset", "system_wakeup", "kp_1"].map(String::from).to_vec();
        let complete = |text: &[u8]| {
            let mut e = Editor::default();
            keys(&mut e, text);
            let list = e.complete(&words, &mut |_| ());
            (String::from_utf8_lossy(e.line()).into_owned(), list)
        };
        assert_eq!(complete(b"st"), ("stop ".into(), vec![]));
        assert_eq!(complete(b"sy"), ("system_".into(), vec![]));
        assert_eq!(complete(b"system_").1, ["system_reset", "system_wakeup"]);
        assert_eq!(complete(b"sendkey ctrl-kp").0, "sendkey ctrl-kp_1 ");
        assert_eq!(complete(b"zz"), ("zz".into(), vec![]));
    }
}
