// A class activation map over its picture.

// inferno (Nathaniel Smith and Stefan van der Walt, https://bids.github.io/colormap, CC0), as the API's PNGs have it.
const COLOURS = (
  "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766 a32c61 b0315b " +
  "bc3754 c63d4d d04545 da4e3c e35933 eb6429 f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586 fcffa4"
)
  .split(" ")
  .map((colour) => [0, 2, 4].map((i) => Number.parseInt(colour.slice(i, i + 2), 16)));

const SIDE = 192; // of the interpolated map; the browser enlarges it from there
const VEIL = "rgb(8 12 14 / 62%)"; // over what the network did not see

/** Draws `map` (the API's heatmap) on `canvas`, which lies over the whole upright picture. */
export function draw(canvas, map) {
  const { width, height } = map.image;
  const scale = Math.min(1, 800 / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  const [left, upper, right, lower] = map.box;
  const place = [left * scale, upper * scale, (right - left) * scale, (lower - upper) * scale];
  context.fillStyle = VEIL;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(...place);
  context.imageSmoothingQuality = "high";
  context.drawImage(coloured(map.grid), ...place);
}

function coloured(grid) {
  const values = enlarged(enlarged(grid, SIDE), SIDE); // rows, then columns: each turn transposes
  const [low, high] = range(grid);
  const image = new ImageData(SIDE, SIDE);
  values.flat().forEach((value, i) => {
    const level = high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0;
    const at = level * (COLOURS.length - 1);
    const below = COLOURS[Math.floor(at)];
    const above = COLOURS[Math.ceil(at)];
    for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = below[c] + (above[c] - below[c]) * (at % 1);
    // Low parts let the picture through, so that one sees what is high, and where.
    image.data[4 * i + 3] = 255 * (0.45 + 0.55 * level);
  });
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

export function range(grid) {
  const values = grid.flat();
  return [Math.min(...values), Math.max(...values)];
}

/** `rows` resampled to `size` of them by cubic convolution (a = -0.5) and transposed; edges repeat. */
function enlarged(rows, size) {
  const result = Array.from({ length: rows[0].length }, () => new Array(size));
  for (let i = 0; i < size; i += 1) {
    const at = ((i + 0.5) * rows.length) / size - 0.5;
    const first = Math.floor(at) - 1;
    for (let column = 0; column < rows[0].length; column += 1) {
      let sum = 0;
      for (let tap = first; tap < first + 4; tap += 1) {
        sum += cubic(Math.abs(at - tap)) * rows[Math.min(rows.length - 1, Math.max(0, tap))][column];
      }
      result[column][i] = sum;
    }
  }
  return result;
}

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}
