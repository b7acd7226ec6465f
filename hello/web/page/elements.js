// Finds and makes elements, and changes them only where something is new.

export const byId = (id) => document.getElementById(id);
export const html = (name, ...parts) => fill(document.createElement(name), ...parts);
export const svg = (name, ...parts) => fill(document.createElementNS("http://www.w3.org/2000/svg", name), ...parts);

function fill(element, attributes = {}, ...children) {
	for (const attribute in attributes) element.setAttribute(attribute, attributes[attribute]);
	element.append(...children);
	return element;
}

export function set(element, attribute, value) {
	if (element.getAttribute(attribute) !== value) element.setAttribute(attribute, value);
}

/** A status is read aloud each time it is written, with equal text too. */
export function write(element, text) {
	if (element.textContent !== text) element.textContent = text;
}
