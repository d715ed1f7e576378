// What is drawn on the page, by name and kind: its contrast to what is behind it, and the least that WCAG 2.2 AA wants.
() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (colour) => {
        const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgba(colour).map((v) => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (rgba(colour)[3] === 255) return colour;
        }
        return "white";
    };
    const contrast = (a, b) => {
        const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
        return (bright + 0.05) / (dark + 0.05);
    };
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
        if (!element.checkVisibility() || element.closest(".unseen, .skip, option")) continue;
        const text = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
        const style = getComputedStyle(element);
        const name = `${element.tagName}.${element.className?.baseVal ?? element.className}`;
        if (text) found.push([name, "text", contrast(style.color, behind(element)), 4.5]);
        if (element.matches("select:enabled, button:not(.plain, .prediction)"))
            found.push([name, "edge", contrast(style.borderTopColor, behind(element.parentElement)), 3]);
        if (element.matches(".fill, .stage-infer"))
            found.push([name, "mark", contrast(style.backgroundColor, behind(element.closest(".card"))), 3]);
        if (element.matches(".bar-piece"))
            found.push([name, "mark", contrast(style.fill, behind(element.closest(".chart"))), 3]);
        if (element.matches(".line"))
            found.push([name, "line", contrast(style.stroke, behind(element.closest(".chart"))), 3]);
    }
    return found;
}
