// A room plan with lamps, for the agent to switch: what a function of the page's own can do.

export const ROOMS = ["kitchen", "living room", "bedroom", "bathroom", "hall"];

export class Room {
  #lamps = new Map();

  constructor(list) {
    for (const name of ROOMS) {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => this.#switch(name, !this.isOn(name)));
      item.append(button);
      list.append(item);
      this.#lamps.set(name, button);
    }
  }

  isOn(name) {
    return this.#lamps.get(name).getAttribute("aria-pressed") === "true";
  }

  get lights() {
    return Object.fromEntries(ROOMS.map((name) => [name, this.isOn(name)]));
  }

  // What the agent may call.
  get functions() {
    return {
      set_light: {
        description: "Switch the light of a room on or off; room `all` is every room.",
        parameters: {
          type: "object",
          properties: { room: { type: "string", enum: [...ROOMS, "all"] }, on: { type: "boolean" } },
          required: ["room", "on"],
        },
        run: ({ room, on }) => {
          const rooms = room === "all" ? ROOMS : [room];
          if (!rooms.every((name) => this.#lamps.has(name))) throw new Error(`there is no room ${room}`);
          for (const name of rooms) this.#switch(name, Boolean(on));
          return this.lights;
        },
      },
      get_lights: {
        description: "Which rooms have light: an object from room to true or false.",
        parameters: { type: "object", properties: {} },
        run: () => this.lights,
      },
    };
  }

  #switch(name, on) {
    this.#lamps.get(name).setAttribute("aria-pressed", String(on));
  }
}
