//! Options of the commands: short ones with values, long ones, in any order.

/// An option: its letter, its long names, what its value is called, what it does.
pub struct Opt(pub char, pub &'static [&'static str], pub Option<&'static str>, pub &'static str);

/// The options of a command.
pub struct Spec {
    pub about: &'static str,
    pub options: &'static [Opt],
    /// What follows the options.
    pub operands: &'static str,
    /// How many: at least, at most.
    pub count: (usize, usize),
}

/// Options that most commands have.
pub const FORMAT: Opt = Opt('f', &["format"], Some("FMT"), "format of the image; a guess if not given");
pub const QUIET: Opt = Opt('q', &["quiet"], None, "print nothing but errors");
pub const PROGRESS: Opt = Opt('p', &["progress"], None, "show progress");
pub const SHARE: Opt = Opt('U', &["force-share"], None, "open the image although somebody else writes to it");
pub const IMAGE_OPTS: Opt = Opt('I', &["image-opts"], None, "FILE is options of a block node, not a name");
pub const OUTPUT: Opt = Opt('\u{1}', &["output"], Some("human|json"), "how to print");
pub const CACHE: Opt = Opt('t', &["cache"], Some("MODE"), "cache mode: writeback, none, unsafe and so on");
pub const SOURCE_CACHE: Opt = Opt('T', &["source-cache", "backing-cache"], Some("MODE"), "cache mode of what is read");
const HELP: Opt = Opt('h', &["help"], None, "show this help");

impl Spec {
    fn find(&self, test: impl Fn(&Opt) -> bool) -> Option<&'static Opt> {
        const HELPS: &[Opt] = &[HELP];
        self.options.iter().chain(HELPS).find(|o| test(o))
    }
    pub fn help(&self, name: &str) -> String {
        let mut text = format!("{}\n\nusage: rhea img {name} [options] {}\n\n", self.about, self.operands);
        for o in self.options.iter().chain([&HELP]) {
            let mut left = String::from("  ");
            if o.0.is_ascii_alphabetic() && o.0 != 'I' {
                left.push_str(&format!("-{}", o.0));
            }
            for long in o.1 {
                left.push_str(&format!("{}--{long}", if left.len() > 2 { ", " } else { "" }));
            }
            if let Some(value) = o.2 {
                left.push_str(&format!(" {value}"));
            }
            text.push_str(&format!("{left:<36} {}\n", o.3));
        }
        text
    }
}

/// What was given.
#[derive(Default)]
pub struct Args {
    flags: Vec<char>,
    values: Vec<(char, String)>,
    pub operands: Vec<String>,
}

impl Args {
    pub fn parse(spec: &'static Spec, words: &[String]) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.iter();
        let mut only_operands = false;
        while let Some(word) = words.next() {
            // A size that is to be subtracted is no option.
            let number = word.len() > 1 && word.as_bytes()[1].is_ascii_digit();
            if only_operands || !word.starts_with('-') || word == "-" || number {
                args.operands.push(word.clone());
                continue;
            }
            if word == "--" {
                only_operands = true;
                continue;
            }
            if let Some(long) = word.strip_prefix("--") {
                let (name, given) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
                let opt = spec.find(|o| o.1.contains(&name)).ok_or_else(|| format!("unknown option '--{name}'"))?;
                args.add(opt, given, &mut words)?;
                continue;
            }
            let mut letters = word[1..].chars();
            while let Some(letter) = letters.next() {
                let opt = spec.find(|o| o.0 == letter && letter != 'I');
                let opt = opt.ok_or_else(|| format!("unknown option '-{letter}' (-h shows all)"))?;
                let rest = letters.as_str();
                if opt.2.is_some() {
                    args.add(opt, (!rest.is_empty()).then(|| rest.to_owned()), &mut words)?;
                    break;
                }
                args.add(opt, None, &mut words)?;
            }
        }
        let n = args.operands.len();
        if !args.flag('h') && !(spec.count.0..=spec.count.1).contains(&n) {
            return Err(format!("expected {}", spec.operands));
        }
        Ok(args)
    }
    fn add<'a>(
        &mut self,
        opt: &Opt,
        given: Option<String>,
        words: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), String> {
        let name = || if opt.0.is_ascii_alphabetic() { format!("-{}", opt.0) } else { format!("--{}", opt.1[0]) };
        match (opt.2, given) {
            (None, None) => self.flags.push(opt.0),
            (None, Some(_)) => return Err(format!("option '{}' takes no value", name())),
            (Some(_), Some(value)) => self.values.push((opt.0, value)),
            (Some(what), None) => {
                let value = words.next().ok_or_else(|| format!("option '{}' needs {what}", name()))?;
                self.values.push((opt.0, value.clone()));
            }
        }
        Ok(())
    }
    pub fn flag(&self, letter: char) -> bool {
        self.flags.contains(&letter)
    }
    /// The last value.
    pub fn value(&self, letter: char) -> Option<&str> {
        self.values.iter().rev().find(|(l, _)| *l == letter).map(|(_, v)| v.as_str())
    }
    pub fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(l, _)| *l == letter).map(|(_, v)| v.as_str())
    }
    /// Is output to be JSON?
    pub fn json(&self) -> Result<bool, String> {
        match self.value(OUTPUT.0) {
            None | Some("human") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => Err(format!("--output must be human or json, not '{other}'")),
        }
    }
}
