//! Byte-level BPE, several times as fast as `tokenizers` encodes it and with the same ids: patterns are
//! searched by an automaton instead of a backtracking engine, words seen before are looked up by their bytes,
//! and no offsets are kept. Added tokens, normalisation and the merging of a new word stay the library's.

use ahash::AHashMap;
use regex_automata::meta::{Cache as SearchCache, Regex};
use regex_automata::{Anchored, Input, PatternID};
use std::sync::{LazyLock, Mutex};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{Model, ModelWrapper, OffsetReferential, OffsetType, PreTokenizerWrapper, Tokenizer};
use unicode_normalization_alignments::{is_nfc_quick, IsNormalized};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// How nearly every published pattern ends: white space leaves its last character to the word behind it.
const WHITE_SPACE: &str = r"|\s+(?!\S)|\s+";

/// The character that byte-level vocabularies write for each byte (`bytes_to_unicode` of GPT-2's encoder).
static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let code = byte as u32;
        if printable(code) {
            return byte as u8 as char;
        }
        next += 1;
        char::from_u32(next - 1).unwrap()
    })
});

/// A pattern whose matches are pieces, as what lies between them is.
struct Pattern {
    regex: Regex,
    /// Matches of this alternative end in a character that belongs to what follows.
    gives_back: Option<PatternID>,
}

impl Pattern {
    /// None where the two engines might not agree; where they do, the tests compare them.
    fn new(source: &str) -> Option<Self> {
        let (main, has_white_space) = match source.strip_suffix(WHITE_SPACE) {
            Some(main) => (main, true),
            None => (source, false),
        };
        if !is_plain(main) {
            return None;
        }
        let main = if has_white_space { format!(r"{main}|\s+\z") } else { main.to_owned() };
        let alternatives = if has_white_space { vec![main.as_str(), r"\s+\s", r"\s+"] } else { vec![main.as_str()] };
        let regex = Regex::new_many(&alternatives).ok()?;
        let matches_nothing = regex.is_match("");
        let gives_back = has_white_space.then(|| PatternID::must(1));
        (!matches_nothing).then_some(Pattern { regex, gives_back })
    }

    fn split<'t>(&self, text: &'t str, search: &mut SearchCache, mut piece: impl FnMut(&'t str)) {
        let mut start = 0;
        while start < text.len() {
            // Most often a piece begins where the last one ended.
            let here = Input::new(text).range(start..).anchored(Anchored::Yes);
            if let Some(found) = self.regex.search_half_with(search, &here) {
                let mut end = found.offset();
                if Some(found.pattern()) == self.gives_back {
                    end -= text[..end].chars().next_back().map_or(0, char::len_utf8);
                }
                piece(&text[start..end]);
                start = end;
                continue;
            }
            let next = self.regex.search_with(search, &Input::new(text).range(start..));
            let end = next.map_or(text.len(), |found| found.start());
            piece(&text[start..end]);
            start = end;
        }
    }
}

/// Whether Oniguruma and `regex` read the pattern alike: letters, escaped signs, `\p{..}`, white space, flat classes,
/// groups and greedy repetition. Anchors, look-around, back references and nested classes are not.
fn is_plain(pattern: &str) -> bool {
    let chars: Vec<char> = pattern.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut in_class = false;
    let mut i = 0;
    while i < chars.len() {
        match chars[i] {
            '\\' => {
                let escaped = at(i + 1);
                let is_known = matches!(escaped, 'p' | 's' | 'S' | 'r' | 'n' | 't') || escaped.is_ascii_punctuation();
                if !is_known {
                    return false;
                }
                i += 1;
                if escaped == 'p' {
                    if at(i + 1) != '{' {
                        return false;
                    }
                    let Some(length) = chars[i..].iter().position(|&c| c == '}') else { return false };
                    i += length;
                }
            }
            '[' if in_class => return false,
            '[' => {
                in_class = true;
                i += usize::from(at(i + 1) == '^');
                if at(i + 1) == ']' {
                    return false;
                }
            }
            ']' if in_class => in_class = false,
            '&' | '-' | '~' if in_class && at(i + 1) == chars[i] => return false,
            _ if in_class => {}
            '(' if at(i + 1) == '?' => {
                let ignores_case = at(i + 2) == 'i' && at(i + 3) == ':';
                if !ignores_case && at(i + 2) != ':' {
                    return false;
                }
                if ignores_case && !folds_by_letter(&chars[i + 4..]) {
                    return false;
                }
                i += 2;
            }
            '?' | '*' | '+' | '}' if matches!(at(i + 1), '?' | '+' | '*' | '{') => return false,
            '.' | '^' | '$' | ']' => return false,
            _ => {}
        }
        i += 1;
    }
    !in_class
}

/// Of the inside of `(?i:`: letters whose cases are single characters. Oniguruma would match "ß" by "ss".
fn folds_by_letter(inside: &[char]) -> bool {
    let inside: String = inside.iter().take_while(|&&c| c != ')').collect();
    let is_simple = |c: char| c.is_ascii_alphabetic() || matches!(c, '\'' | '|' | '[' | ']');
    inside.chars().all(is_simple) && !["ff", "fi", "fl", "ss", "st"].iter().any(|pair| inside.to_lowercase().contains(pair))
}

enum Splitter {
    Digits { each: bool },
    Pattern(Pattern),
}

impl Splitter {
    fn of(pre_tokenizer: &PreTokenizerWrapper) -> Option<Self> {
        match pre_tokenizer {
            PreTokenizerWrapper::Digits(digits) => Some(Splitter::Digits { each: digits.individual_digits }),
            PreTokenizerWrapper::Split(split) if !split.invert && split.behavior == SplitDelimiterBehavior::Isolated => {
                match &split.pattern {
                    SplitPattern::Regex(source) => Pattern::new(source).map(Splitter::Pattern),
                    SplitPattern::String(_) => None,
                }
            }
            _ => None,
        }
    }
}

fn split_digits<'t>(text: &'t str, each: bool, mut piece: impl FnMut(&'t str)) {
    let mut start = 0;
    let mut was_digit = false;
    for (at, c) in text.char_indices() {
        let is_digit = c.is_numeric();
        if at > start && (is_digit != was_digit || (each && is_digit)) {
            piece(&text[start..at]);
            start = at;
        }
        was_digit = is_digit;
    }
    if start < text.len() {
        piece(&text[start..]);
    }
}

/// Ids of words, the lately seen ones: what is not asked for while `YOUNG` others are goes.
#[derive(Default)]
struct Words {
    young: AHashMap<Box<[u8]>, Box<[u32]>>,
    old: AHashMap<Box<[u8]>, Box<[u32]>>,
}

impl Words {
    const YOUNG: usize = 1 << 15;
    const LONGEST: usize = 64;

    fn find(&mut self, word: &[u8], ids: &mut Vec<u32>) -> bool {
        if let Some(known) = self.young.get(word) {
            ids.extend_from_slice(known);
            return true;
        }
        let Some((word, known)) = self.old.remove_entry(word) else { return false };
        ids.extend_from_slice(&known);
        self.insert(word, known);
        true
    }

    fn insert(&mut self, word: Box<[u8]>, ids: Box<[u32]>) {
        if self.young.len() >= Self::YOUNG {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(word, ids);
    }
}

/// What a call of `encode` writes to, kept for the next one.
struct Scratch {
    words: Words,
    searches: Vec<Option<SearchCache>>,
    mapped: String,
}

pub struct FastEncoder {
    splitters: Vec<Splitter>,
    is_nfc: bool,
    /// What post-processing writes around a text.
    before: Vec<u32>,
    after: Vec<u32>,
    scratch: Mutex<Vec<Scratch>>,
}

impl FastEncoder {
    /// None for a tokenizer of another kind: SentencePiece, words, look-ahead of other forms, truncation, dropout.
    pub fn new(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
        if bpe.dropout.is_some() || tokenizer.get_truncation().is_some() || tokenizer.get_padding().is_some() {
            return None;
        }
        let is_nfc = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        let steps = match tokenizer.get_pre_tokenizer()? {
            PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().to_vec(),
            one => vec![one.clone()],
        };
        let (PreTokenizerWrapper::ByteLevel(bytes), first) = steps.split_last()? else { return None };
        if bytes.add_prefix_space {
            return None;
        }
        let mut splitters = first.iter().map(Splitter::of).collect::<Option<Vec<_>>>()?;
        if bytes.use_regex {
            splitters.push(Splitter::Pattern(Pattern::new(GPT2)?));
        }
        let (before, after) = surroundings(tokenizer)?;
        Some(FastEncoder { splitters, is_nfc, before, after, scratch: Mutex::default() })
    }

    pub fn encode(&self, tokenizer: &Tokenizer, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, String> {
        let lent = self.scratch.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut scratch = lent.unwrap_or_else(|| self.new_scratch());
        let mut ids = Vec::with_capacity(text.len() / 3);
        if add_special_tokens {
            ids.extend_from_slice(&self.before);
        }
        let is_normal = !self.is_nfc || text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes;
        let normalizer = if is_normal { None } else { tokenizer.get_normalizer() };
        let parts = tokenizer.get_added_vocabulary().extract_and_normalize(normalizer, text);
        for (part, _, tokens) in parts.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => self.encode_part(tokenizer, part, &mut scratch, &mut ids)?,
            }
        }
        if add_special_tokens {
            ids.extend_from_slice(&self.after);
        }
        self.scratch.lock().unwrap_or_else(|e| e.into_inner()).push(scratch);
        Ok(ids)
    }

    fn new_scratch(&self) -> Scratch {
        let search = |splitter: &Splitter| match splitter {
            Splitter::Digits { .. } => None,
            Splitter::Pattern(pattern) => Some(pattern.regex.create_cache()),
        };
        Scratch { words: Words::default(), searches: self.splitters.iter().map(search).collect(), mapped: String::new() }
    }

    fn encode_part(&self, tokenizer: &Tokenizer, part: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<(), String> {
        let Scratch { words, searches, mapped } = scratch;
        let mut error = None;
        split(&self.splitters, searches, part, &mut |word| {
            if words.find(word.as_bytes(), ids) || error.is_some() {
                return;
            }
            mapped.clear();
            mapped.extend(word.bytes().map(|byte| BYTE_CHARS[byte as usize]));
            match tokenizer.get_model().tokenize(mapped) {
                Err(e) => error = Some(e.to_string()),
                Ok(tokens) => {
                    let begin = ids.len();
                    ids.extend(tokens.iter().map(|token| token.id));
                    if word.len() <= Words::LONGEST {
                        words.insert(word.as_bytes().into(), ids[begin..].into());
                    }
                }
            }
        });
        error.map_or(Ok(()), Err)
    }
}

/// Gives each piece that is left when every splitter has split what the one before it left.
fn split<'t>(splitters: &[Splitter], searches: &mut [Option<SearchCache>], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((first, rest)) = splitters.split_first() else {
        if !text.is_empty() {
            word(text);
        }
        return;
    };
    let Some((search, rest_searches)) = searches.split_first_mut() else { return };
    let next = |piece| split(rest, rest_searches, piece, word);
    match (first, search) {
        (Splitter::Digits { each }, _) => split_digits(text, *each, next),
        (Splitter::Pattern(pattern), Some(search)) => pattern.split(text, search, next),
        (Splitter::Pattern(_), None) => unreachable!("every pattern has a cache"),
    }
}

/// The ids that post-processing writes before and behind a text, found by encoding one; None where that is unclear.
fn surroundings(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let ids = |text: &str, special| Some(tokenizer.encode_fast(text, special).ok()?.get_ids().to_vec());
    let (plain, whole) = (ids("a", false)?, ids("a", true)?);
    if plain.is_empty() {
        return None;
    }
    let mut places = whole.windows(plain.len()).enumerate().filter(|(_, window)| *window == plain).map(|(at, _)| at);
    let at = places.next()?;
    if places.next().is_some() {
        return None;
    }
    let (before, after) = (whole[..at].to_vec(), whole[at + plain.len()..].to_vec());
    (ids("", true)? == [before.clone(), after.clone()].concat()).then_some((before, after))
}
