//! A picture of 32-bit pixels that knows which parts changed when.

/// Side of the squares in which changes are noted, in pixels.
pub const TILE: usize = 16;

/// The picture of a display. Pixels are `0x00RRGGBB`.
#[derive(Clone, Debug, Default)]
pub struct Surface {
    width: usize,
    height: usize,
    pixels: Vec<u32>,
    /// For each tile the frame in which it changed last.
    changed: Vec<u64>,
    frame: u64,
    /// The frame in which the size changed last.
    resized: u64,
}

/// A part of a surface, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

impl Surface {
    /// The largest width and height.
    pub const MAX: usize = 16384;

    /// Begins a frame; what is drawn until the next one belongs to it.
    pub fn begin(&mut self) {
        self.frame += 1;
    }
    /// The number of the current frame; 0 before the first.
    #[must_use]
    pub fn frame(&self) -> u64 {
        self.frame
    }
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }
    /// Has the size changed after `frame`?
    #[must_use]
    pub fn resized_since(&self, frame: u64) -> bool {
        self.resized > frame
    }
    /// Gives the picture a size; a new one is black and changed everywhere.
    pub fn resize(&mut self, width: usize, height: usize) {
        let (width, height) = (width.clamp(1, Self::MAX), height.clamp(1, Self::MAX));
        if (width, height) == (self.width, self.height) {
            return;
        }
        (self.width, self.height, self.resized) = (width, height, self.frame);
        self.pixels.clear();
        self.pixels.resize(width * height, 0);
        self.changed.clear();
        self.changed.resize(width.div_ceil(TILE) * height.div_ceil(TILE), self.frame);
    }
    /// Everything becomes one colour.
    pub fn fill(&mut self, pixel: u32) {
        let line = vec![pixel; self.width];
        (0..self.height).for_each(|y| self.put(0, y, &line));
    }
    /// Puts pixels into a line from `x` on; what lies outside is left out. Only what differs counts as changed.
    pub fn put(&mut self, x: usize, y: usize, line: &[u32]) {
        if y >= self.height || x >= self.width {
            return;
        }
        let end = (x + line.len()).min(self.width);
        let columns = self.width.div_ceil(TILE);
        let row = &mut self.pixels[y * self.width..(y + 1) * self.width];
        let tiles = &mut self.changed[y / TILE * columns..][..columns];
        let mut at = x;
        while at < end {
            let stop = ((at / TILE + 1) * TILE).min(end);
            let (old, new) = (&mut row[at..stop], &line[at - x..stop - x]);
            if old != new {
                old.copy_from_slice(new);
                tiles[at / TILE] = self.frame;
            }
            at = stop;
        }
    }
    /// The pixels of a line; empty outside.
    #[must_use]
    pub fn line(&self, y: usize) -> &[u32] {
        self.pixels.get(y * self.width..(y + 1) * self.width).unwrap_or_default()
    }
    /// A pixel; black outside.
    #[must_use]
    pub fn pixel(&self, x: usize, y: usize) -> u32 {
        self.line(y).get(x).copied().unwrap_or(0)
    }
    /// What changed after `frame` within `of`: rectangles of whole tiles, cut at the edges of `of` and of the picture.
    #[must_use]
    pub fn changes(&self, frame: u64, of: Rect) -> Vec<Rect> {
        let columns = self.width.div_ceil(TILE);
        let (right, bottom) =
            (of.x.saturating_add(of.width).min(self.width), of.y.saturating_add(of.height).min(self.height));
        let mut found: Vec<Rect> = Vec::new();
        // Rectangles that end at the row of tiles being looked at, and may go on below.
        let mut open: Vec<usize> = Vec::new();
        let mut y = of.y;
        while y < bottom {
            let next_y = ((y / TILE + 1) * TILE).min(bottom);
            let tiles = &self.changed[y / TILE * columns..][..columns];
            let mut now = Vec::new();
            let mut x = of.x;
            while x < right {
                let mut end = x;
                while end < right && tiles[end / TILE] > frame {
                    end = ((end / TILE + 1) * TILE).min(right);
                }
                if end == x {
                    x = (x / TILE + 1) * TILE;
                    continue;
                }
                let above = open.iter().copied().find(|i| (found[*i].x, found[*i].width) == (x, end - x));
                match above {
                    Some(i) => {
                        found[i].height += next_y - y;
                        now.push(i);
                    }
                    None => {
                        now.push(found.len());
                        found.push(Rect { x, y, width: end - x, height: next_y - y });
                    }
                }
                x = end;
            }
            open = now;
            y = next_y;
        }
        found
    }
    /// Copies a part out, line by line; the part must lie inside.
    #[must_use]
    pub fn copy(&self, of: Rect) -> Vec<u32> {
        let mut pixels = Vec::with_capacity(of.width * of.height);
        for y in of.y..of.y + of.height {
            pixels.extend_from_slice(self.line(y).get(of.x..of.x + of.width).unwrap_or_default());
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rect = Rect { x: 0, y: 0, width: 1000, height: 1000 };

    #[test]
    fn changes_are_those_after_a_frame() {
        let mut s = Surface::default();
        s.begin();
        s.resize(100, 40);
        assert_eq!(s.changes(0, ALL), [Rect { x: 0, y: 0, width: 100, height: 40 }]);
        assert!(s.resized_since(0) && !s.resized_since(1));
        s.begin();
        s.put(10, 20, &[1; 10]);
        s.put(98, 39, &[7; 10]);
        s.put(0, 40, &[7; 10]);
        s.put(40, 0, &[0; 10]);
        let changes = s.changes(1, ALL);
        assert_eq!(changes, [Rect { x: 0, y: 16, width: 32, height: 16 }, Rect { x: 96, y: 32, width: 4, height: 8 },]);
        assert_eq!(
            s.changes(1, Rect { x: 20, y: 0, width: 5, height: 18 }),
            [Rect { x: 20, y: 16, width: 5, height: 2 }]
        );
        assert_eq!(s.changes(2, ALL), []);
        assert_eq!((s.pixel(19, 20), s.pixel(20, 20), s.pixel(99, 39)), (1, 0, 7));
        assert_eq!(s.copy(Rect { x: 18, y: 20, width: 3, height: 1 }), [1, 1, 0]);
    }
}
